//! How deep and how large a pickle unfolds, found without unfolding it: a few bytes can describe more than any memory holds, or nest
//! deeper than any stack. What is refused here is never handed to the reader.

use std::collections::HashMap;

use crate::Error;

/// Deeper values are none that programs share.
const MOST_DEPTH: u32 = 100;
/// Values in all, those that are named again counted each time.
const MOST_VALUES: u64 = 10_000_000;

/// What is known of a value: how deep it goes, and of how many values it consists.
#[derive(Debug, Clone, Copy)]
struct Shape {
    depth: u32,
    values: u64,
    /// Used by its name: if it grew after that, it would contain itself or be more than was counted where it is used.
    shared: bool,
}

const PLAIN: Shape = Shape {
    depth: 0,
    values: 1,
    // One shape serves all values that contain none.
    shared: true,
};

/// The place of that one among the shapes.
const SCALAR: usize = 0;

struct Walk<'a> {
    rest: &'a [u8],
    shapes: Vec<Shape>,
    stack: Vec<usize>,
    marks: Vec<usize>,
    memo: HashMap<u32, usize>,
}

/// Fails for a pickle that is cut off, nests too deep, unfolds too far or grows what it named before.
pub(crate) fn check(pickle: &[u8]) -> Result<(), Error> {
    let mut walk = Walk {
        rest: pickle,
        shapes: vec![PLAIN],
        stack: Vec::new(),
        marks: Vec::new(),
        memo: HashMap::new(),
    };
    while walk.step()? {}
    Ok(())
}

impl Walk<'_> {
    /// One opcode; false after the last.
    // CPython: pickletools.opcodes
    fn step(&mut self) -> Result<bool, Error> {
        let opcode = self.take(1)?[0];
        match opcode {
            b'.' => return Ok(false),
            b'(' => self.marks.push(self.stack.len()),
            // What has no argument and is one value; the second kind may grow.
            b'N' | 0x88 | 0x89 | b')' => self.stack.push(SCALAR),
            b']' | b'}' | 0x8f => self.push(&[])?,
            b'K' => self.scalar(1)?,
            b'M' => self.scalar(2)?,
            b'J' => self.scalar(4)?,
            b'G' => self.scalar(8)?,
            // Lengths before the content, in one, four and eight bytes.
            0x8a | 0x8c | b'C' | b'U' => self.counted(1)?,
            0x8b | b'X' | b'B' | b'T' => self.counted(4)?,
            0x8d | 0x8e | 0x96 => self.counted(8)?,
            // Lines of text.
            b'I' | b'L' | b'F' | b'S' | b'V' => {
                self.line()?;
                self.stack.push(SCALAR);
            }
            b'c' => {
                self.line()?;
                self.line()?;
                self.stack.push(SCALAR);
            }
            0x80 => drop(self.take(1)?),
            0x95 => drop(self.take(8)?),
            // Memo: write.
            b'q' => {
                let index = u32::from(self.take(1)?[0]);
                self.name(index)?;
            }
            b'r' => {
                let index = self.word()?;
                self.name(index)?;
            }
            b'p' => {
                let index = self.number()?;
                self.name(index)?;
            }
            0x94 => {
                let index = u32::try_from(self.memo.len()).unwrap_or(u32::MAX);
                self.name(index)?;
            }
            // Memo: read.
            b'h' => {
                let index = u32::from(self.take(1)?[0]);
                self.named(index)?;
            }
            b'j' => {
                let index = self.word()?;
                self.named(index)?;
            }
            b'g' => {
                let index = self.number()?;
                self.named(index)?;
            }
            b'0' => drop(self.pop()?),
            b'1' => drop(self.marked()?),
            b'2' => {
                let top = *self.stack.last().ok_or_else(cut)?;
                self.shapes[top].shared = true;
                self.stack.push(top);
            }
            0x85..=0x87 => {
                let parts = usize::from(opcode - 0x84);
                let from = self.stack.len().checked_sub(parts).ok_or_else(cut)?;
                let parts = self.stack.split_off(from);
                self.push(&parts)?;
            }
            b't' | b'l' | b'd' | 0x91 => {
                let parts = self.marked()?;
                self.push(&parts)?;
            }
            b'a' => self.grow(1)?,
            b's' => self.grow(2)?,
            b'e' | b'u' | 0x90 => {
                let parts = self.marked()?;
                self.grow_by(&parts)?;
            }
            // A call: what it is of, the reader decides; the result consists of the arguments.
            b'R' | 0x81 | 0x93 => {
                let from = self.stack.len().checked_sub(2).ok_or_else(cut)?;
                let parts = self.stack.split_off(from);
                self.push(&parts)?;
            }
            other => {
                return Err(Error::Decode(format!(
                    "not a pickle of plain data: opcode 0x{other:02x}"
                )));
            }
        }
        Ok(true)
    }

    fn take(&mut self, length: usize) -> Result<&[u8], Error> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or_else(cut)?;
        self.rest = rest;
        Ok(taken)
    }

    fn scalar(&mut self, length: usize) -> Result<(), Error> {
        self.take(length)?;
        self.stack.push(SCALAR);
        Ok(())
    }

    fn counted(&mut self, width: usize) -> Result<(), Error> {
        let mut length = [0; 8];
        length[..width].copy_from_slice(self.take(width)?);
        let length = usize::try_from(u64::from_le_bytes(length)).map_err(|_| cut())?;
        self.scalar(length)
    }

    fn line(&mut self) -> Result<&[u8], Error> {
        let end = self.rest.iter().position(|byte| *byte == b'\n');
        let end = end.ok_or_else(cut)?;
        let line = self.take(end + 1)?;
        Ok(&line[..end])
    }

    fn number(&mut self) -> Result<u32, Error> {
        let text = str::from_utf8(self.line()?).unwrap_or_default();
        text.trim().parse().map_err(|_| cut())
    }

    fn word(&mut self) -> Result<u32, Error> {
        let mut word = [0; 4];
        word.copy_from_slice(self.take(4)?);
        Ok(u32::from_le_bytes(word))
    }

    fn name(&mut self, index: u32) -> Result<(), Error> {
        let top = *self.stack.last().ok_or_else(cut)?;
        self.memo.insert(index, top);
        Ok(())
    }

    fn named(&mut self, index: u32) -> Result<(), Error> {
        let shape = *self.memo.get(&index).ok_or_else(cut)?;
        self.shapes[shape].shared = true;
        self.stack.push(shape);
        Ok(())
    }

    fn pop(&mut self) -> Result<usize, Error> {
        self.stack.pop().ok_or_else(cut)
    }

    fn marked(&mut self) -> Result<Vec<usize>, Error> {
        let mark = self.marks.pop().ok_or_else(cut)?;
        if mark > self.stack.len() {
            return Err(cut());
        }
        Ok(self.stack.split_off(mark))
    }

    fn grow(&mut self, parts: usize) -> Result<(), Error> {
        let from = self.stack.len().checked_sub(parts).ok_or_else(cut)?;
        let parts = self.stack.split_off(from);
        self.grow_by(&parts)
    }

    fn grow_by(&mut self, parts: &[usize]) -> Result<(), Error> {
        let target = *self.stack.last().ok_or_else(cut)?;
        if self.shapes[target].shared {
            return Err(Error::Decode(
                "a pickle that changes what it has named".to_owned(),
            ));
        }
        let added = self.around(parts)?;
        let shape = &mut self.shapes[target];
        shape.depth = shape.depth.max(added.depth);
        shape.values = shape.values.saturating_add(added.values);
        within(*shape).map(|_| ())
    }

    /// A container of these, on top of the stack.
    fn push(&mut self, parts: &[usize]) -> Result<(), Error> {
        let shape = self.around(parts)?;
        self.stack.push(self.shapes.len());
        self.shapes.push(shape);
        Ok(())
    }

    fn around(&self, parts: &[usize]) -> Result<Shape, Error> {
        let parts = parts.iter().map(|part| self.shapes[*part]);
        let all = parts.fold(PLAIN, |all, part| Shape {
            depth: all.depth.max(part.depth),
            values: all.values.saturating_add(part.values),
            shared: false,
        });
        within(Shape {
            depth: all.depth + 1,
            shared: false,
            ..all
        })
    }
}

fn within(shape: Shape) -> Result<Shape, Error> {
    if shape.depth > MOST_DEPTH || shape.values > MOST_VALUES {
        return Err(Error::Decode(format!(
            "a pickle of more than {MOST_DEPTH} levels or {MOST_VALUES} values"
        )));
    }
    Ok(shape)
}

fn cut() -> Error {
    Error::Decode("a pickle that is cut off or out of order".to_owned())
}

#[cfg(test)]
mod tests {
    use super::check;

    #[test]
    fn what_unfolds_too_far_or_too_deep_is_refused() {
        // A hundred thousand lists, each in the next.
        let deep = [
            &b"\x80\x04"[..],
            &b"]".repeat(100_000),
            &b"a".repeat(99_999),
            b".",
        ]
        .concat();
        // Ten times ten times ten times …
        let mut wide = b"\x80\x04]\x94(".to_vec();
        wide.extend(b"N".repeat(10));
        wide.extend(b"e");
        for index in 0..9_u8 {
            wide.extend(b"]\x94(");
            for _ in 0..10 {
                wide.extend([b'h', index]);
            }
            wide.push(b'e');
        }
        wide.push(b'.');
        // A list that is put into itself.
        let own = b"\x80\x04]\x94h\x00a.";
        // One that grows after it was put into another.
        let late = b"\x80\x04]\x94]h\x00a0Na.";
        for pickle in [&deep[..], &wide, own, late, b"\x80\x04", b"\x80\x04e."] {
            assert!(check(pickle).is_err());
        }
        // [[1, 'a'], 'a']
        check(b"\x80\x04]\x94(]\x94(K\x01\x8c\x01a\x94eh\x02e.").unwrap();
    }
}
