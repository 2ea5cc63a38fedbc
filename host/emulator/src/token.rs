//! The token that clients want to hold: they read when it expires, and nobody here checks it, because only this machine can connect.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

const LIFETIME: f64 = 3600.0;

pub(crate) fn unsigned(now: f64) -> String {
    let part = |json: String| URL_SAFE_NO_PAD.encode(json);
    let head = part(r#"{"alg":"none","typ":"JWT"}"#.to_owned());
    let claims = part(format!(r#"{{"iat":{now:.0},"exp":{:.0}}}"#, now + LIFETIME));
    format!("{head}.{claims}.{}", part("unsigned".to_owned()))
}
