//! Who we are: the metadata that goes with every call.

use std::fmt;

use tonic::metadata::{AsciiMetadataValue, MetadataMap};

use crate::{CLIENT_VERSION, Error, ServerUrl, wire};

/// Modal's `ClientType`, the two values we use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientKind {
    Client = 1,
    Container = 3,
}

/// How a caller names itself. `Debug` keeps the secret out.
#[derive(Clone)]
pub struct Credentials {
    pub kind: ClientKind,
    /// `ak-…`/`as-…`; containers and the emulator need none.
    pub token: Option<(String, String)>,
    /// The version of the official client that we claim to behave like.
    pub client_version: String,
}

impl Credentials {
    /// A caller without a token: enough for a server on this machine.
    #[must_use]
    pub fn local() -> Self {
        Self {
            kind: ClientKind::Client,
            token: None,
            client_version: CLIENT_VERSION.to_owned(),
        }
    }

    #[must_use]
    pub fn container() -> Self {
        Self {
            kind: ClientKind::Container,
            token: None,
            client_version: CLIENT_VERSION.to_owned(),
        }
    }

    #[must_use]
    pub fn token(id: String, secret: String) -> Self {
        Self {
            kind: ClientKind::Client,
            token: Some((id, secret)),
            client_version: CLIENT_VERSION.to_owned(),
        }
    }

    /// For a server that no longer takes the version that we know best.
    #[must_use]
    pub fn claiming(mut self, client_version: String) -> Self {
        self.client_version = client_version;
        self
    }

    pub(crate) fn metadata(&self, url: &ServerUrl) -> Result<MetadataMap, Error> {
        let value = |text: &str| {
            AsciiMetadataValue::try_from(text).map_err(|_| Error::Url {
                url: url.to_string(),
                reason: "a header value has characters outside ASCII".to_owned(),
            })
        };
        let mut map = MetadataMap::new();
        map.insert(wire::CLIENT_TYPE, value(&(self.kind as u8).to_string())?);
        map.insert(wire::CLIENT_VERSION, value(&self.client_version)?);
        map.insert("x-modal-python-version", value("3.12.0")?);
        map.insert(
            "x-modal-libmodal-version",
            value(concat!("modalflow/", env!("CARGO_PKG_VERSION")))?,
        );
        map.insert("x-modal-host", value(url.host())?);
        if let Some((id, secret)) = &self.token {
            map.insert("x-modal-token-id", value(id)?);
            let mut secret = value(secret)?;
            secret.set_sensitive(true);
            map.insert("x-modal-token-secret", secret);
        }
        Ok(map)
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("kind", &self.kind)
            .field("token_id", &self.token.as_ref().map(|(id, _)| id))
            .finish_non_exhaustive()
    }
}
