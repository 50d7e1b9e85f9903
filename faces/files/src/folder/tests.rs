use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};

use super::*;

const TIME: Time = Time { seconds: 0, nanoseconds: 0 };

fn path(text: &str) -> EntryPath {
    EntryPath::parse(text).unwrap()
}

#[test]
fn links_are_not_followed() {
    let (inside, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    std::fs::write(outside.path().join("file"), "secret").unwrap();
    symlink(outside.path(), inside.path().join("out")).unwrap();
    symlink(outside.path().join("file"), inside.path().join("file")).unwrap();
    let folder = Folder::open(inside.path()).unwrap();
    assert!(folder.read(&path("out/file")).is_err());
    assert!(folder.read(&path("file")).is_err());
    assert!(folder.make_part(&path("out/new")).is_err());
    assert!(folder.make_folder(&path("out/new"), Permissions::of_mode(0o755)).is_err());
    assert!(folder.make_link(&path("out/new"), "file", true).is_err());
    assert!(
        folder.make_folder(&path("out"), Permissions::of_mode(0o755)).is_err(),
        "a link to a folder is none"
    );
    assert_eq!(folder.find(&path("out/file")).unwrap(), Found::Nothing);
    assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 1);
}

#[test]
fn a_part_that_is_a_link_to_something_else_is_replaced() {
    let (inside, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let secret = outside.path().join("secret");
    std::fs::write(&secret, "secret").unwrap();
    let folder = Folder::open(inside.path()).unwrap();
    let link = |name: &str| inside.path().join(format!(".{name}{PART_SUFFIX}"));
    symlink(&secret, link("symbolic")).unwrap();
    std::fs::hard_link(&secret, link("hard")).unwrap();
    for name in ["symbolic", "hard"] {
        assert!(folder.find_part(&path(name)).unwrap().is_none(), "{name}");
        folder.make_part(&path(name)).unwrap();
    }
    assert_eq!(std::fs::read(&secret).unwrap(), b"secret");
    assert_eq!(std::fs::metadata(&secret).unwrap().nlink(), 1);
}

/// A user who can open the part could lock it and so block resuming.
#[test]
fn a_part_is_its_owner_s_alone_until_it_has_its_name() {
    let inside = tempfile::tempdir().unwrap();
    let folder = Folder::open(inside.path()).unwrap();
    let mode = |name: &str| std::fs::metadata(inside.path().join(name)).unwrap().mode() & 0o777;
    for (name, sent) in [("x", 0o644), ("run", 0o755), ("private", 0o600), ("set-user-id", 0o104_755)] {
        let part = folder.make_part(&path(name)).unwrap();
        assert_eq!(mode(&format!(".{name}{PART_SUFFIX}")), 0o600);
        part.finish(&path(name), Permissions::of_mode(sent), TIME, false, true).unwrap();
        assert_eq!(mode(name), sent & 0o777 & !umask());
    }
    // A part that was about to be renamed when the program was killed, or that an earlier version made.
    let old = inside.path().join(format!(".old{PART_SUFFIX}"));
    std::fs::write(&old, "old").unwrap();
    std::fs::set_permissions(&old, std::fs::Permissions::from_mode(0o644)).unwrap();
    folder.find_part(&path("old")).unwrap().unwrap();
    assert_eq!(mode(&format!(".old{PART_SUFFIX}")), 0o600);
}

#[test]
fn two_programs_do_not_write_the_same_part() {
    let inside = tempfile::tempdir().unwrap();
    let folder = Folder::open(inside.path()).unwrap();
    let first = folder.make_part(&path("x")).unwrap();
    let found = folder.find_part(&path("x")).map(drop).unwrap_err();
    let made = folder.make_part(&path("x")).map(drop).unwrap_err();
    let link = folder.make_link(&path("x"), "y", true);
    assert!(link.is_ok(), "nothing is called x, so that no part is in the way");
    let link = folder.make_link(&path("x"), "z", true).unwrap_err();
    for error in [found, made, link] {
        assert_eq!(error.kind(), io::ErrorKind::ResourceBusy);
    }
    first.finish(&path("x"), Permissions::of_mode(0o644), TIME, true, true).unwrap();
    assert!(std::fs::symlink_metadata(inside.path().join("x")).unwrap().is_file());
    folder.make_part(&path("x")).unwrap();
}

#[test]
fn a_part_that_is_not_written_any_more_is_replaced() {
    let inside = tempfile::tempdir().unwrap();
    let folder = Folder::open(inside.path()).unwrap();
    std::fs::write(inside.path().join(".x.peersock-part"), "old").unwrap();
    let part = folder.make_part(&path("x")).unwrap();
    assert_eq!((part.length, part.file.metadata().unwrap().len()), (0, 0));
    part.finish(&path("x"), Permissions::of_mode(0o644), TIME, false, true).unwrap();
    assert_eq!(std::fs::read(inside.path().join("x")).unwrap(), b"");
}

#[test]
fn a_part_whose_name_another_file_has_is_not_taken_for_it() {
    let inside = tempfile::tempdir().unwrap();
    let folder = Folder::open(inside.path()).unwrap();
    let name = inside.path().join(".x.peersock-part");
    for (overwrite, is_removed) in [(false, false), (true, false), (false, true), (true, true)] {
        let part = folder.make_part(&path("x")).unwrap();
        std::fs::remove_file(&name).unwrap();
        if !is_removed {
            std::fs::write(&name, "of somebody else").unwrap();
        }
        let error = part.finish(&path("x"), Permissions::of_mode(0o644), TIME, overwrite, true).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ResourceBusy);
        assert!(!inside.path().join("x").exists(), "nobody has verified that");
    }
    let part = folder.make_part(&path("x")).unwrap();
    std::fs::remove_file(&name).unwrap();
    std::fs::write(&name, "of somebody else").unwrap();
    part.remove().unwrap();
    assert!(name.exists());
}

/// Another receiver finishes a part after this one has opened it, and before this one has locked it.
#[test]
fn a_part_that_is_finished_meanwhile_is_left_alone() {
    let inside = tempfile::tempdir().unwrap();
    let folder = Folder::open(inside.path()).unwrap();
    let part = folder.make_part(&path("x")).unwrap();
    std::fs::write(inside.path().join(".x.peersock-part"), "verified").unwrap();
    let parent = folder.parent_of(&path("x")).unwrap();
    let opened = File::options().read(true).write(true).open(inside.path().join(".x.peersock-part")).unwrap();
    part.finish(&path("x"), Permissions::of_mode(0o644), TIME, false, true).unwrap();
    assert!(Part::hold(opened, &parent, ".x.peersock-part").unwrap().is_none());
    assert!(folder.find_part(&path("x")).unwrap().is_none());
    folder.make_part(&path("x")).unwrap().clear().unwrap();
    assert_eq!(std::fs::read(inside.path().join("x")).unwrap(), b"verified");
}

#[test]
fn what_appears_meanwhile_is_not_overwritten() {
    let inside = tempfile::tempdir().unwrap();
    let folder = Folder::open(inside.path()).unwrap();
    let time = Time { seconds: 5, nanoseconds: 0 };
    for (overwrite, left) in [(false, "mine"), (true, "")] {
        let part = folder.make_part(&path("x")).unwrap();
        std::fs::write(inside.path().join("x"), "mine").unwrap();
        assert_eq!(
            part.finish(&path("x"), Permissions::of_mode(0o755), time, overwrite, true).is_ok(),
            overwrite
        );
        assert_eq!(std::fs::read_to_string(inside.path().join("x")).unwrap(), left);
    }
    let metadata = std::fs::metadata(inside.path().join("x")).unwrap();
    assert_eq!((metadata.mtime(), metadata.mode() & 0o100), (5, 0o100));
}

#[test]
fn names_of_parts_are_never_too_long() {
    assert_eq!(part_name("a"), ".a.peersock-part");
    let (one, other) = (part_name(&"x".repeat(255)), part_name(&"x".repeat(254)));
    assert!(one.len() <= 255 && one != other && one.ends_with(PART_SUFFIX));
}
