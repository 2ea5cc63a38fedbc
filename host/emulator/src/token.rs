//! Tokens: the pair that callers over TCP have to show, and the one that clients want to hold (they read when it expires; nobody here
//! checks it).

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

use crate::{Error, Tokens, ids};

const LIFETIME: f64 = 3600.0;

pub(crate) fn unsigned(now: f64) -> String {
    let part = |json: String| URL_SAFE_NO_PAD.encode(json);
    let head = part(r#"{"alg":"none","typ":"JWT"}"#.to_owned());
    let claims = part(format!(r#"{{"iat":{now:.0},"exp":{:.0}}}"#, now + LIFETIME));
    format!("{head}.{claims}.{}", part("unsigned".to_owned()))
}

impl Tokens {
    /// The pair in a folder's file `token`, made if it is not there: Modal's two words on a line each.
    pub fn kept_in(folder: &Path) -> Result<Self, Error> {
        let path = folder.join("token");
        let text = match fs::read_to_string(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => make(&path),
            other => other,
        };
        let text = text.map_err(Error::file(&path))?;
        let mut words = text.split_whitespace().map(str::to_owned);
        match (words.next(), words.next()) {
            (Some(id), Some(secret)) => Ok(Self { id, secret }),
            _ => Err(Error::Token(path)),
        }
    }
}

fn make(path: &Path) -> io::Result<String> {
    let text = format!("{}\nas-{}\n", ids::object("ak"), ids::secret());
    let mut file = OpenOptions::new()
        .create_new(true)
        .write(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(text.as_bytes())?;
    Ok(text)
}
