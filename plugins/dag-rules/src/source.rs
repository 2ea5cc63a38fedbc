//! Finding things in the Python source, as far as that goes without running it. Pure.

/// The line on which an id is written as a string, when there is exactly one.
pub(crate) fn line_of(source: &str, id: &str) -> Option<u32> {
    let quoted = [format!("\"{id}\""), format!("'{id}'")];
    let mut lines = source
        .lines()
        .enumerate()
        .filter(|(_, line)| quoted.iter().any(|quoted| line.contains(quoted.as_str())))
        .map(|(index, _)| index as u32 + 1);
    let first = lines.next()?;
    lines.next().is_none().then_some(first)
}

#[cfg(test)]
mod tests {
    use super::line_of;

    #[test]
    fn an_id_written_once_has_a_line() {
        let source = "with DAG('a'):\n    b = Bash(task_id=\"b\")\n    c('x')\n    d('x')\n";
        assert_eq!(line_of(source, "b"), Some(2));
        assert_eq!(line_of(source, "a"), Some(1));
        assert_eq!(line_of(source, "x"), None);
        assert_eq!(line_of(source, "nowhere"), None);
    }
}
