//! Modal's ids: a prefix for the kind and 22 letters or digits.

use rand::RngExt;
use sha2::{Digest, Sha256};

const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const LENGTH: usize = 22;

pub(crate) fn function_call() -> String {
    random("fc")
}

pub(crate) fn input() -> String {
    random("in")
}

pub(crate) fn task() -> String {
    random("ta")
}

/// An object of a kind, named by its prefix.
pub(crate) fn object(prefix: &str) -> String {
    random(prefix)
}

/// Letters and digits that cannot be guessed.
pub(crate) fn secret() -> String {
    let mut rng = rand::rng();
    let letters = std::iter::repeat_with(|| char::from(ALPHABET[rng.random_range(0..62)]));
    letters.take(32).collect()
}

pub(crate) fn mount(environment: &str, name: &str) -> String {
    named("mo", &[environment, name])
}

pub(crate) fn workspace(name: &str) -> String {
    named("ac", &[name])
}

/// The same function has the same id in every life of the emulator: calls of an earlier life find it.
pub(crate) fn function(environment: &str, app_name: &str, name: &str) -> String {
    named("fu", &[environment, app_name, name])
}

/// The same options make the same variant.
pub(crate) fn variant(function_id: &str, parameters: &[u8], options: &[u8]) -> String {
    let digest = |bytes: &[u8]| crate::contents::hex(&Sha256::digest(bytes));
    named("fu", &[function_id, &digest(parameters), &digest(options)])
}

/// The same layers make the same image.
pub(crate) fn image(definition: &[u8], builder_version: &str) -> String {
    let digest = crate::contents::hex(&Sha256::digest(definition));
    named("im", &[&digest, builder_version])
}

pub(crate) fn app(environment: &str, app_name: &str) -> String {
    named("ap", &[environment, app_name])
}

pub(crate) fn environment(name: &str) -> String {
    named("en", &[name])
}

pub(crate) fn definition(spec_hash: &str) -> String {
    named("de", &[spec_hash])
}

fn random(prefix: &str) -> String {
    let mut rng = rand::rng();
    format_id(prefix, std::iter::repeat_with(|| rng.random_range(0..62)))
}

fn named(prefix: &str, parts: &[&str]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        // The length keeps ("a", "bc") apart from ("ab", "c").
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part.as_bytes());
    }
    format_id(
        prefix,
        hash.finalize().iter().map(|byte| usize::from(*byte) % 62),
    )
}

fn format_id(prefix: &str, digits: impl Iterator<Item = usize>) -> String {
    let mut id = String::with_capacity(prefix.len() + 1 + LENGTH);
    id.push_str(prefix);
    id.push('-');
    id.extend(digits.take(LENGTH).map(|digit| char::from(ALPHABET[digit])));
    id
}

#[cfg(test)]
mod tests {
    #[test]
    fn names_give_lasting_ids_and_their_borders_count() {
        assert_eq!(
            super::function("", "a", "bc"),
            super::function("", "a", "bc")
        );
        assert_ne!(
            super::function("", "a", "bc"),
            super::function("", "ab", "c")
        );
        insta::assert_snapshot!(super::function("main", "app", "work"), @r#"fu-ItI7vpJKwyPdynZx8U4lSS"#);
        assert_eq!(super::input().len(), 25);
    }
}
