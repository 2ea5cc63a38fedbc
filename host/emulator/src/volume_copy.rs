//! Copies within a volume. A link is copied as a link: what it leads to stays where it is, and nothing is written through one.

use std::{
    fs,
    io::{self, ErrorKind},
    os::unix::fs::symlink,
    path::Path,
};

use modal_api::wire;
use tonic::Status;

use crate::{
    ask::Ask,
    contents::Contents,
    volumes::{existing, inside, landing, root, unusable},
};

pub(crate) fn copy2(ask: &Ask, request: wire::VolumeCopyFiles2Request) -> Result<(), Status> {
    let request = wire::VolumeCopyFilesRequest {
        volume_id: request.volume_id,
        src_paths: request.src_paths,
        dst_path: request.dst_path,
        recursive: request.recursive,
    };
    copy(ask, request)
}

/// Into a directory, or to another name: like `cp`.
pub(crate) fn copy(ask: &Ask, request: wire::VolumeCopyFilesRequest) -> Result<(), Status> {
    let (sources, target) = (&request.src_paths, request.dst_path.as_str());
    let root = root(&ask.core, &ask.core.lock(), &request.volume_id)?;
    let folder = inside(target)?;
    let into = root.join(&folder).is_dir() || target.ends_with('/') || sources.len() > 1;
    for source in sources {
        let relative = inside(source)?;
        let from = existing(&root, &relative)?;
        if from.is_dir() && !request.recursive {
            return Err(Status::invalid_argument(format!(
                "'{source}' is a directory: copy it recursively"
            )));
        }
        let name = relative
            .file_name()
            .ok_or_else(|| Status::invalid_argument("the volume's root cannot be copied"))?;
        let to = if into {
            landing(&root, &folder.join(name))?
        } else {
            landing(&root, &folder)?
        };
        if to.starts_with(&from) {
            return Err(Status::invalid_argument(format!(
                "'{source}' cannot be copied into itself"
            )));
        }
        copy_tree(&ask.core.contents, &from, &to).map_err(|error| match error.kind() {
            ErrorKind::NotADirectory | ErrorKind::IsADirectory | ErrorKind::Unsupported => {
                Status::invalid_argument(format!("'{source}' cannot be copied: {error}"))
            }
            _ => unusable(&request.volume_id)(error),
        })?;
    }
    Ok(())
}

fn copy_tree(contents: &Contents, from: &Path, to: &Path) -> io::Result<()> {
    let metadata = from.symlink_metadata()?;
    let there = to.symlink_metadata().ok();
    if metadata.is_dir() {
        if there.is_some_and(|there| !there.is_dir()) {
            return Err(ErrorKind::NotADirectory.into());
        }
        fs::create_dir_all(to)?;
        for child in fs::read_dir(from)? {
            let child = child?;
            copy_tree(contents, &child.path(), &to.join(child.file_name()))?;
        }
        return Ok(());
    }
    if there.is_some_and(|there| there.is_dir()) {
        return Err(ErrorKind::IsADirectory.into());
    }
    if let Some(parent) = to.parent() {
        fs::create_dir_all(parent)?;
    }
    // Written elsewhere and put in its place: nobody reads half of it, and a link there is replaced.
    let fresh = contents.fresh();
    let made = if metadata.is_symlink() {
        fs::read_link(from).and_then(|target| symlink(target, &fresh))
    } else if metadata.is_file() {
        fs::copy(from, &fresh).map(drop)
    } else {
        Err(ErrorKind::Unsupported.into())
    };
    made.and_then(|()| fs::rename(&fresh, to))
        .inspect_err(|_| drop(fs::remove_file(&fresh)))
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::copy_tree;
    use crate::{contents::Contents, volumes::landing};

    #[test]
    fn a_copy_follows_no_link() {
        let folder = tempfile::tempdir().unwrap();
        let (root, outside) = (folder.path().join("v"), folder.path().join("outside"));
        for path in [&root.join("a"), &root.join("c"), &outside] {
            fs::create_dir_all(path).unwrap();
        }
        fs::write(outside.join("secret"), "secret").unwrap();
        fs::write(root.join("a/x"), "x").unwrap();
        symlink(outside.join("secret"), root.join("a/link")).unwrap();
        symlink(&outside, root.join("out")).unwrap();
        symlink(&outside, root.join("c/sub")).unwrap();
        let contents = Contents::open(folder.path()).unwrap();
        let copy = |from: &str, to: &str| {
            copy_tree(&contents, &root.join(from), &root.join(to)).map_err(|error| error.kind())
        };

        copy("a", "b").unwrap();
        assert_eq!(fs::read(root.join("b/x")).unwrap(), b"x");
        assert_eq!(
            fs::read_link(root.join("b/link")).unwrap(),
            outside.join("secret")
        );
        // Over a link: it is replaced, or it is in the way.
        copy("a/x", "a/link").unwrap();
        assert_eq!(fs::read(outside.join("secret")).unwrap(), b"secret");
        fs::create_dir(root.join("a/sub")).unwrap();
        assert_eq!(
            copy("a", "c"),
            Err(std::io::ErrorKind::NotADirectory),
            "c/sub leads out"
        );
        let lands = |path: &str| landing(&root, path.as_ref()).is_ok();
        assert_eq!(
            ["new/x", "a/x", "", "out/x", "out/new/x", "b/x/y/z"].map(lands),
            [true, true, true, false, false, false]
        );
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
        let left = fs::read_dir(folder.path().join("contents")).unwrap();
        assert_eq!(left.count(), 0);
    }
}
