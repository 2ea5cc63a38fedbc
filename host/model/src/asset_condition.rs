//! Which assets a DAG waits for, as Airflow writes it into `dag.asset_expression`.

use serde_json::Value;

/// `airflow: BaseAsset.as_expression`
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AssetCondition {
    Asset {
        name: String,
        uri: String,
    },
    /// `Asset.ref(name=…)`: the active asset of this name.
    NameRef {
        name: String,
    },
    /// `Asset.ref(uri=…)`: the active asset with this URI.
    UriRef {
        uri: String,
    },
    /// Any asset that was ever emitted through the alias.
    Alias {
        name: String,
    },
    All(Vec<AssetCondition>),
    Any(Vec<AssetCondition>),
}

impl AssetCondition {
    /// Reads `dag.asset_expression`; `None` where it is of another form.
    #[must_use]
    pub fn parse(expression: &Value) -> Option<Self> {
        let fields = expression.as_object()?;
        let (kind, value) = fields.iter().next().filter(|_| fields.len() == 1)?;
        let text = |name: &str| value.get(name)?.as_str().map(str::to_owned);
        let members =
            || -> Option<Vec<Self>> { value.as_array()?.iter().map(Self::parse).collect() };
        match kind.as_str() {
            "asset" => Some(Self::Asset {
                name: text("name")?,
                uri: text("uri")?,
            }),
            "alias" => Some(Self::Alias {
                name: text("name")?,
            }),
            "asset_ref" => match (text("name"), text("uri")) {
                (Some(name), _) => Some(Self::NameRef { name }),
                (None, Some(uri)) => Some(Self::UriRef { uri }),
                (None, None) => None,
            },
            "all" => members().map(Self::All),
            "any" => members().map(Self::Any),
            _ => None,
        }
    }
}
