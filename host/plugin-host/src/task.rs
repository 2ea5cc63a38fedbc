//! What a call is about: task instances, XCom coordinates, and how an id becomes a part of a path.
//!
//! Airflow lets nearly everything through as an id (`..`, newlines, `../../etc/passwd`, 250 characters of any script), so no id
//! touches a path before it went through [`path_part`]. It is the only encoder in the house; plugins reach it as
//! `object-store.part`.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// The try of a task instance that a call is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TaskKey {
    pub dag_id: String,
    pub run_id: String,
    pub task_id: String,
    /// -1 when the task is not mapped.
    pub map_index: i32,
    /// 0 when the caller is not a running try, as when the UI reads an XCom.
    pub try_number: u32,
}

/// Where one XCom value belongs.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct XcomCoordinate {
    pub task: TaskKey,
    pub key: String,
}

/// What is going away when values are purged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    One(XcomCoordinate),
    /// One task instance; its `map_index` counts, its `try_number` does not.
    Task(TaskKey),
    Run {
        dag_id: String,
        run_id: String,
    },
    Dag {
        dag_id: String,
    },
}

/// The longest part written out in full; file systems stop at 255 bytes and the log layout puts `run_id=` before it.
const LONGEST_PART: usize = 200;
/// What is kept readable of a longer one, before its hash.
const KEPT_OF_LONG: usize = 120;

/// One id as one part of a path: injective, never empty, never `.` or `..`, at most 200 bytes of plain ASCII.
///
/// Common ids stay as they are. A `%` followed by anything but two hexadecimal digits is never the encoding of a character,
/// so the empty id (`%-`) and shortened ids (`…%~` and a SHA-256) cannot be forged by choosing another id.
pub fn path_part(id: &str) -> String {
    if id.is_empty() {
        return "%-".to_owned();
    }
    let only_dots = id == "." || id == "..";
    let mut part = String::with_capacity(id.len());
    for byte in id.bytes() {
        if is_plain(byte) && !only_dots {
            part.push(char::from(byte));
        } else {
            part.push_str(&format!("%{byte:02X}"));
        }
    }
    if part.len() <= LONGEST_PART {
        return part;
    }
    let mut end = KEPT_OF_LONG;
    // An escape is three bytes; never cut through one.
    while part.as_bytes()[end - 2..end].contains(&b'%') {
        end -= 1;
    }
    format!(
        "{}%~{}",
        &part[..end],
        hex::encode(Sha256::digest(id.as_bytes()))
    )
}

/// Characters that stand for themselves in a part.
pub(crate) fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"_-=.:+~@,".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::path_part;
    use proptest::prelude::*;

    #[test]
    fn ids_become_path_parts() {
        let shown: Vec<String> = [
            "etl",
            "manual__2025-01-01T00:00:00+00:00",
            "..",
            ".",
            "",
            "...",
            "../../etc/passwd",
            "a/b",
            "a b\n",
            "größe",
            "100%",
            "%2E",
        ]
        .iter()
        .map(|id| format!("{id:?} -> {}", path_part(id)))
        .collect();
        insta::assert_snapshot!(shown.join("\n"), @r#"
        "etl" -> etl
        "manual__2025-01-01T00:00:00+00:00" -> manual__2025-01-01T00:00:00+00:00
        ".." -> %2E%2E
        "." -> %2E
        "" -> %-
        "..." -> ...
        "../../etc/passwd" -> ..%2F..%2Fetc%2Fpasswd
        "a/b" -> a%2Fb
        "a b\n" -> a%20b%0A
        "größe" -> gr%C3%B6%C3%9Fe
        "100%" -> 100%25
        "%2E" -> %252E
        "#);
    }

    #[test]
    fn a_long_id_cannot_be_forged_by_a_short_one() {
        let long = "x".repeat(512);
        let part = path_part(&long);
        assert!(part.len() <= 200, "{}", part.len());
        assert_ne!(path_part(&part), part);
        assert_ne!(path_part(&"x".repeat(511)), part);
    }

    proptest! {
        #[test]
        fn parts_are_safe(id in ".*") {
            let part = path_part(&id);
            prop_assert!(!part.is_empty() && part != "." && part != ".." && part.len() <= 200);
            prop_assert!(part.bytes().all(|byte| super::is_plain(byte) || byte == b'%'));
        }

        #[test]
        fn parts_are_injective(a in "[%~.a-c/0-9é]{0,90}", b in "[%~.a-c/0-9é]{0,90}") {
            prop_assert_eq!(a == b, path_part(&a) == path_part(&b));
        }

        #[test]
        fn encoding_twice_never_meets_another_id(a in "[%~./é]{0,120}") {
            let once = path_part(&a);
            prop_assert_eq!(path_part(&once) == once, once == a);
        }
    }
}
