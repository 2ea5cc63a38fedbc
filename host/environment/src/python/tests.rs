//! The Python environment, made once for all tests.

use super::*;

#[test]
fn files_are_written_once_and_named_by_their_content() {
    let directory = tempfile::tempdir().unwrap();
    let home = Home::at(directory.path()).unwrap();
    let one = materialise(&home, &[("a.py", "A = 1\n"), ("b/c.py", "C = 1\n")]).unwrap();
    assert_eq!(
        std::fs::read_to_string(one.join("b/c.py")).unwrap(),
        "C = 1\n"
    );
    assert_eq!(
        materialise(&home, &[("a.py", "A = 1\n"), ("b/c.py", "C = 1\n")]).unwrap(),
        one
    );
    let two = materialise(&home, &[("a.py", "A = 2\n"), ("b/c.py", "C = 1\n")]).unwrap();
    assert_ne!(one, two);
    assert_eq!(std::fs::read_dir(home.python_files()).unwrap().count(), 2);
}
