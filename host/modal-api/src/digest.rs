//! `Repr-Digest` (RFC 9530): what a server says the SHA-256 of a whole body is. Nothing is sent or asked here.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::HeaderMap;
use sha2::{Digest as _, Sha256};

/// False: the server named a SHA-256, and it is another one. Other algorithms are not looked at.
pub(crate) fn fits(headers: &HeaderMap, body: &[u8]) -> bool {
    let named = headers
        .get("repr-digest")
        .and_then(|value| sha256(value.to_str().ok()?));
    named.is_none_or(|named| Sha256::digest(body).as_slice() == named)
}

/// The last `sha-256` of the header that can be read.
// modal: _parse_repr_digest
fn sha256(header: &str) -> Option<Vec<u8>> {
    members(header)
        .into_iter()
        .filter_map(|member| {
            let value = member.trim().strip_prefix("sha-256=:")?;
            let (digest, rest) = value.split_once(':')?;
            let digest = STANDARD.decode(digest).ok()?;
            (digest.len() == 32 && (rest.is_empty() || rest.starts_with(';'))).then_some(digest)
        })
        .next_back()
}

/// Split at commas that stand in no quoted text.
fn members(header: &str) -> Vec<&str> {
    let (mut members, mut start) = (Vec::new(), 0);
    let (mut quoted, mut escaped) = (false, false);
    for (place, letter) in header.char_indices() {
        match letter {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            ',' if !quoted => {
                members.push(&header[start..place]);
                start = place + 1;
            }
            _ => {}
        }
    }
    members.push(&header[start..]);
    members
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::fits;

    #[test]
    fn a_body_is_held_against_the_digest_that_its_server_names() {
        let right = "ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=";
        let wrong = "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=";
        let check = |header: &str| {
            let headers =
                HeaderMap::from_iter([("repr-digest".parse().unwrap(), header.parse().unwrap())]);
            fits(&headers, b"abc")
        };
        assert!(fits(&HeaderMap::new(), b"abc"));
        assert!(check(&format!("sha-256=:{right}:")));
        assert!(check(&format!("sha-512=:AAAA:, sha-256=:{right}:;a=1")));
        assert!(check(&format!("sha-256=:{wrong}:, sha-256=:{right}:")));
        assert!(check(&format!("md5=\"x, sha-256=:{wrong}:\"")));
        assert!(check("sha-256=:short:") && check("something else"));
        assert!(!check(&format!("sha-256=:{wrong}:")));
        assert!(!check(&format!(
            "sha-256=:{right}:, sha-256=:{wrong}:;q=\",\""
        )));
    }
}
