//! A file, one JSON object a line. A batch is on disk when it is done; when the file has grown it is put aside as `.1`, the older ones move up.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    path::{Path, PathBuf},
};

/// Appends lines, all or none. For its owner alone, like all that sensors said.
pub(super) fn append(path: &Path, lines: &[String], max_bytes: u64, keep: u32) -> io::Result<()> {
    let mut text = String::new();
    for line in lines {
        text.push_str(line);
        text.push('\n');
    }
    let (mut file, mut end) = open(path)?;
    if end > 0 && end.saturating_add(text.len() as u64) > max_bytes {
        drop(file);
        put_aside(path, keep)?;
        (file, end) = open(path)?;
    }
    let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_data());
    if written.is_err() {
        // It is tried again as a whole, also where only its end was refused. Where this fails too, a line is there twice.
        let _ = file.set_len(end);
    }
    written
}

/// The file and where it ends. A line that was being written when the machine stopped is ended.
fn open(path: &Path) -> io::Result<(File, u64)> {
    let is_new = !path.exists();
    let mut options = OpenOptions::new();
    options.create(true).read(true).append(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    if is_new {
        sync_folder(path)?;
    }
    let mut end = file.seek(SeekFrom::End(0))?;
    if end > 0 {
        let mut last = [0];
        file.seek(SeekFrom::End(-1))?;
        file.read_exact(&mut last)?;
        if last != *b"\n" {
            file.write_all(b"\n")?;
            end += 1;
        }
    }
    Ok((file, end))
}

fn put_aside(path: &Path, keep: u32) -> io::Result<()> {
    let aside = |number: u32| {
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".{number}"));
        PathBuf::from(name)
    };
    if keep == 0 {
        return fs::remove_file(path);
    }
    for number in (1..keep).rev() {
        match fs::rename(aside(number), aside(number + 1)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    fs::rename(path, aside(1))?;
    sync_folder(path)
}

/// A name is on disk when its folder is.
fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(range: std::ops::Range<u32>) -> Vec<String> {
        range.map(|number| format!("{{\"n\":{number}}}")).collect()
    }

    #[test]
    fn it_is_put_aside_by_size_and_the_oldest_goes() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("alerts.ndjson");
        for number in 0..5 {
            append(&path, &lines(number..number + 1), 10, 2).expect("written");
        }
        let text = |name: &str| fs::read_to_string(folder.path().join(name)).expect("there");
        assert_eq!(text("alerts.ndjson"), "{\"n\":4}\n");
        assert_eq!(text("alerts.ndjson.1"), "{\"n\":3}\n");
        assert_eq!(text("alerts.ndjson.2"), "{\"n\":2}\n");
        assert!(!folder.path().join("alerts.ndjson.3").exists());
    }

    #[test]
    fn a_line_that_was_cut_does_not_spoil_the_next() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("alerts.ndjson");
        fs::write(&path, "{\"n\":").expect("written");
        append(&path, &lines(1..3), 1000, 2).expect("written");
        assert_eq!(fs::read_to_string(&path).expect("there"), "{\"n\":\n{\"n\":1}\n{\"n\":2}\n");
    }

    #[cfg(unix)]
    #[test]
    fn nobody_else_reads_it() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("alerts.ndjson");
        append(&path, &lines(0..1), 1000, 2).expect("written");
        assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_full_disk_is_an_error() {
        let error = append(Path::new("/dev/full"), &lines(0..1), 1000, 2).expect_err("no room");
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    }
}
