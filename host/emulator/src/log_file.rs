//! A container's log file: its last lines for a report, and its size kept in bounds.
//!
//! The container writes to the file directly, so that it needs nobody to read. Cutting happens from outside: what is written between
//! reading the tail and cutting is lost, and a line says that something was.

use std::{
    fs::OpenOptions,
    io::{self, Read, Seek, SeekFrom, Write},
    path::Path,
};

const TAIL_BYTES: u64 = 4 << 10;
const TAIL_LINES: usize = 20;
const KEPT_BYTES: u64 = 64 << 10;

/// The last lines, empty if there is no file.
pub(crate) fn tail(path: &Path) -> String {
    let bytes = last_bytes(path, TAIL_BYTES).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
}

/// Cuts a file that is over the limit down to its last part.
pub(crate) fn keep_below(path: &Path, limit: u64) -> io::Result<()> {
    let size = path.metadata()?.len();
    if size <= limit {
        return Ok(());
    }
    let kept = last_bytes(path, KEPT_BYTES.min(limit / 2))?;
    let mut file = OpenOptions::new().append(true).open(path)?;
    file.set_len(0)?;
    writeln!(
        file,
        "[truncated: {} bytes were here]",
        size - kept.len() as u64
    )?;
    file.write_all(&kept)
}

fn last_bytes(path: &Path, count: u64) -> io::Result<Vec<u8>> {
    let mut file = std::fs::File::open(path)?;
    let size = file.metadata()?.len();
    file.seek(SeekFrom::Start(size.saturating_sub(count)))?;
    let mut bytes = Vec::new();
    file.take(count).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::{fs, io::Write};

    #[test]
    fn a_large_file_is_cut_under_a_writer_that_appends() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let mut writer = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .unwrap();
        for line in 0..1000 {
            writeln!(writer, "line {line}").unwrap();
        }
        super::keep_below(&path, 100_000).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), 1000);
        super::keep_below(&path, 40).unwrap();
        writeln!(writer, "after").unwrap();
        insta::assert_snapshot!(fs::read_to_string(&path).unwrap(), @r#"
        [truncated: 8870 bytes were here]
        7
        line 998
        line 999
        after
        "#);
        assert_eq!(super::tail(&path).lines().last(), Some("after"));
    }
}
