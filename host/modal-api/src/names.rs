//! Which names Modal takes. Checked before a request, so that a refusal names the rule.

use crate::Error;

const OBJECT_RULE: &str =
    "1 to 64 letters, digits, dashes, underscores and dots, not shaped like an app id (ap-…)";
const ENVIRONMENT_RULE: &str = "1 to 64 letters, digits, dashes, underscores and dots, a letter or digit first, not starting with en-";
const TAG_RULE: &str = "1 to 63 letters, digits, dashes, underscores and dots";

// modal: is_valid_object_name
pub(crate) fn object(kind: &'static str, name: &str) -> Result<(), Error> {
    let app_id = name
        .strip_prefix("ap-")
        .is_some_and(|rest| rest.len() == 22 && rest.bytes().all(|b| b.is_ascii_alphanumeric()));
    if plain(name, 64) && !app_id {
        return Ok(());
    }
    Err(refused(kind, name, OBJECT_RULE))
}

/// Empty is the workspace's default environment.
// modal: is_valid_environment_name
pub(crate) fn environment(name: &str) -> Result<(), Error> {
    let starts_well = name.starts_with(|c: char| c.is_ascii_alphanumeric());
    let reserved = name
        .get(..3)
        .is_some_and(|start| start.eq_ignore_ascii_case("en-"));
    if name.is_empty() || (plain(name, 64) && starts_well && !reserved) {
        return Ok(());
    }
    Err(refused("environment", name, ENVIRONMENT_RULE))
}

// modal: check_tag_dict
pub(crate) fn tag(name: &str) -> Result<(), Error> {
    if plain(name, 63) {
        return Ok(());
    }
    Err(refused("tag", name, TAG_RULE))
}

fn plain(name: &str, most: usize) -> bool {
    (1..=most).contains(&name.len())
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
}

fn refused(kind: &'static str, name: &str, rule: &'static str) -> Error {
    Error::Name {
        kind,
        name: name.to_owned(),
        rule,
    }
}

#[cfg(test)]
mod tests {
    use super::{environment, object, tag};

    #[test]
    fn names_follow_the_official_rules() {
        let long = "a".repeat(65);
        for good in ["a", "A-b_c.9", &long[1..], "ap-short"] {
            assert!(object("volume", good).is_ok(), "{good}");
        }
        for bad in ["", "a b", "a/b", "ä", &long, "ap-0123456789012345678901"] {
            assert!(object("volume", bad).is_err(), "{bad}");
        }
        for good in ["", "main", "a.b"] {
            assert!(environment(good).is_ok(), "{good}");
        }
        for bad in ["-a", "en-x", "EN-x", "a b"] {
            assert!(environment(bad).is_err(), "{bad}");
        }
        assert!(tag("a.b").is_ok() && tag("").is_err() && tag(&long[1..]).is_err());
        insta::assert_snapshot!(object("volume", "a b").unwrap_err(), @r"
        volume name 'a b' cannot be used
        hint: 1 to 64 letters, digits, dashes, underscores and dots, not shaped like an app id (ap-…)
        ");
    }
}
