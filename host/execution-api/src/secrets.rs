//! Fernet, as Airflow encrypts variables and connections with `[core] fernet_key`.

use std::sync::Arc;

use fernet::{Fernet, MultiFernet};

/// A key that is not 32 bytes in URL-safe base64. Which one is said by its place: its text is a secret.
#[derive(Debug, thiserror::Error)]
#[error(
    "use Fernet key {position}: it is not 32 bytes in URL-safe base64\nhint: `[core] fernet_key` must be the UI's"
)]
pub struct UnusableKey {
    position: usize,
}

/// The keys of `[core] fernet_key`: the first encrypts, all decrypt.
#[derive(Clone)]
pub struct Secrets {
    keys: Option<Arc<MultiFernet>>,
}

impl Secrets {
    /// `keys` is the option as it stands, several separated by commas; empty means that nothing is encrypted.
    ///
    /// # Errors
    /// When a key is unusable.
    pub fn new(keys: &str) -> Result<Self, UnusableKey> {
        let keys = keys
            .split(',')
            .map(str::trim)
            .filter(|key| !key.is_empty())
            .enumerate()
            .map(|(at, key)| Fernet::new(key).ok_or(UnusableKey { position: at + 1 }))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Self {
            keys: (!keys.is_empty()).then(|| Arc::new(MultiFernet::new(keys))),
        })
    }

    /// The text of a stored token; `None` when no key fits.
    #[must_use]
    pub fn decrypt(&self, token: &str) -> Option<String> {
        let bytes = self.keys.as_ref()?.decrypt(token).ok()?;
        String::from_utf8(bytes).ok()
    }

    /// What is stored of a text, and whether that is encrypted.
    #[must_use]
    pub fn encrypt(&self, text: &str) -> (String, bool) {
        match &self.keys {
            Some(keys) => (keys.encrypt(text.as_bytes()), true),
            None => (text.to_owned(), false),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Secrets;

    #[test]
    fn what_airflow_encrypted_is_read_with_any_of_the_keys() {
        // Made by Python's cryptography.fernet with the second key.
        let old = "cw_0x689RpI-jtRR7oE8h_eQsKImvJapLeSbXpwF4e4=";
        let new = fernet::Fernet::generate_key();
        let token = Secrets::new(old).unwrap().encrypt("swordfish").0;
        let both = Secrets::new(&format!("{new}, {old}")).unwrap();
        assert_eq!(both.decrypt(&token).as_deref(), Some("swordfish"));
        assert_eq!(Secrets::new(&new).unwrap().decrypt(&token), None);
        assert_eq!(both.decrypt("garbage"), None);
    }

    #[test]
    fn without_a_key_nothing_is_encrypted() {
        let plain = Secrets::new("").unwrap();
        assert_eq!(plain.encrypt("swordfish"), ("swordfish".to_owned(), false));
    }

    #[test]
    fn a_wrong_key_is_named_by_its_place() {
        let error = Secrets::new(&format!("{},short", fernet::Fernet::generate_key()))
            .err()
            .unwrap();
        insta::assert_snapshot!(error, @r"
        use Fernet key 2: it is not 32 bytes in URL-safe base64
        hint: `[core] fernet_key` must be the UI's
        ");
    }
}
