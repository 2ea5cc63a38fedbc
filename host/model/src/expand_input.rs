//! What a mapped task or task group is mapped over.

use serde_json::Value;

/// `airflow: SchedulerExpandInput`
#[derive(Debug, Clone, PartialEq)]
pub enum ExpandInput {
    /// `expand(x=…, y=…)`: the product of all arguments.
    DictOfLists(Vec<(String, MappedArgument)>),
    /// `expand_kwargs(…)`
    ListOfDicts(MappedArgument),
}

/// One thing mapped over.
#[derive(Debug, Clone, PartialEq)]
pub enum MappedArgument {
    /// A list or dict in the DAG file, of this length. `references` are tasks whose XComs are its elements.
    Literal {
        length: usize,
        references: Vec<String>,
    },
    /// What tasks of the run return.
    XCom(XComArg),
    /// Something whose length can never be known, as an argument of an enclosing mapped group.
    Unsized { kind: String },
}

/// `airflow: SchedulerXComArg`
#[derive(Debug, Clone, PartialEq)]
pub enum XComArg {
    Plain {
        task_id: String,
        key: String,
    },
    /// Same length as its argument.
    Map(Box<XComArg>),
    /// The shortest, or with a fill value the longest.
    Zip {
        args: Vec<XComArg>,
        filled: bool,
    },
    /// One after the other.
    Concat(Vec<XComArg>),
}

impl XComArg {
    fn collect_references<'a>(&'a self, into: &mut Vec<&'a str>) {
        match self {
            Self::Plain { task_id, .. } => into.push(task_id),
            Self::Map(arg) => arg.collect_references(into),
            Self::Zip { args, .. } | Self::Concat(args) => {
                for arg in args {
                    arg.collect_references(into);
                }
            }
        }
    }

    fn read(value: &Value) -> Result<Self, &'static str> {
        let (_, value) = decoded(value);
        let list = |key: &str| -> Result<Vec<Self>, &'static str> {
            let args = value.get(key).and_then(Value::as_array);
            args.ok_or("a list of XCom references")?
                .iter()
                .map(Self::read)
                .collect()
        };
        match value
            .get("type")
            .and_then(Value::as_str)
            .unwrap_or_default()
        {
            "" => Ok(Self::Plain {
                task_id: value
                    .get("task_id")
                    .and_then(Value::as_str)
                    .ok_or("an XCom reference with a task_id")?
                    .to_owned(),
                key: value
                    .get("key")
                    .and_then(Value::as_str)
                    .unwrap_or("return_value")
                    .to_owned(),
            }),
            "map" => {
                let arg = value.get("arg").ok_or("an XCom reference with an arg")?;
                Ok(Self::Map(Box::new(Self::read(arg)?)))
            }
            "zip" => Ok(Self::Zip {
                args: list("args")?,
                filled: value.get("fillvalue").is_some(),
            }),
            "concat" => Ok(Self::Concat(list("args")?)),
            _ => Err("an XCom reference of a known type (map, zip, concat)"),
        }
    }
}

impl MappedArgument {
    fn read(value: &Value) -> Result<Self, &'static str> {
        let (kind, inner) = decoded(value);
        match (kind, inner) {
            (Some("xcomref"), _) => Ok(Self::XCom(XComArg::read(value)?)),
            (_, Value::Array(items)) => {
                let mut references = Vec::new();
                for item in items {
                    if let (Some("xcomref"), _) = decoded(item) {
                        let arg = XComArg::read(item)?;
                        let mut ids = Vec::new();
                        arg.collect_references(&mut ids);
                        references.extend(ids.into_iter().map(str::to_owned));
                    }
                }
                Ok(Self::Literal {
                    length: items.len(),
                    references,
                })
            }
            (Some("dict"), Value::Object(map)) => Ok(Self::Literal {
                length: map.len(),
                references: Vec::new(),
            }),
            (None, Value::Object(map)) => Ok(Self::Literal {
                length: map.len(),
                references: Vec::new(),
            }),
            (Some(kind), _) => Ok(Self::Unsized {
                kind: kind.to_owned(),
            }),
            (None, _) => Err("a list, a dict or an XCom reference"),
        }
    }
}

impl ExpandInput {
    /// Reads `{"type": "dict-of-lists" | "list-of-dicts", "value": …}`; the error says what was expected.
    pub(crate) fn read(value: &Value) -> Result<Self, &'static str> {
        let body = value.get("value").ok_or("an expand input with a value")?;
        match value.get("type").and_then(Value::as_str) {
            Some("dict-of-lists") => {
                let (_, body) = decoded(body);
                let map = body.as_object().ok_or("a dict of lists")?;
                map.iter()
                    .map(|(name, argument)| Ok((name.clone(), MappedArgument::read(argument)?)))
                    .collect::<Result<_, _>>()
                    .map(Self::DictOfLists)
            }
            Some("list-of-dicts") => MappedArgument::read(body).map(Self::ListOfDicts),
            _ => Err("an expand input of type dict-of-lists or list-of-dicts"),
        }
    }

    /// The tasks whose XComs this is mapped over. `airflow: iter_mapped_dependencies`
    #[must_use]
    pub fn references(&self) -> Vec<&str> {
        let mut ids = Vec::new();
        for argument in self.arguments() {
            match argument {
                // Airflow looks for references one level deep, and only in expand_kwargs([…]).
                MappedArgument::Literal { references, .. } => {
                    if matches!(self, Self::ListOfDicts(_)) {
                        ids.extend(references.iter().map(String::as_str));
                    }
                }
                MappedArgument::XCom(arg) => arg.collect_references(&mut ids),
                MappedArgument::Unsized { .. } => {}
            }
        }
        ids
    }

    /// All arguments, in the order of the document.
    pub fn arguments(&self) -> impl Iterator<Item = &MappedArgument> {
        let (many, one) = match self {
            Self::DictOfLists(arguments) => (arguments.as_slice(), None),
            Self::ListOfDicts(argument) => (&[][..], Some(argument)),
        };
        many.iter().map(|(_, argument)| argument).chain(one)
    }
}

/// Takes `{"__type": …, "__var": …}` apart; other values pass unchanged.
pub(crate) fn decoded(value: &Value) -> (Option<&str>, &Value) {
    match (
        value.get("__type").and_then(Value::as_str),
        value.get("__var"),
    ) {
        (Some(kind), Some(inner)) => (Some(kind), inner),
        (Some(_) | None, _) => (None, value),
    }
}
