//! Properties for any input: no path leaves the folder, and written data is read back.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;

use peersock_files::{
    Code, Entry, EntryPath, FromReceiver, FromSender, Kind, LinkTarget, Manifest, Options, Permissions, Time,
};
use proptest::prelude::*;

use crate::common::{Breaking, Scene, Silent, content};

fn name() -> impl Strategy<Value = String> {
    prop_oneof!["[a-d]", "[a-z. ]{1,6}", "[^/]{1,4}", Just("..".to_owned()), Just(String::new())]
}

fn path_text() -> impl Strategy<Value = String> {
    prop::collection::vec(name(), 1..6).prop_map(|names| names.join("/"))
}

fn time() -> impl Strategy<Value = Time> {
    (any::<i64>(), any::<u32>()).prop_map(|(seconds, nanoseconds)| Time { seconds, nanoseconds })
}

fn path() -> impl Strategy<Value = EntryPath> {
    path_text().prop_filter_map("no path", |text| EntryPath::parse(&text).ok())
}

fn kind() -> impl Strategy<Value = Kind> {
    prop_oneof![
        any::<u64>().prop_map(|size| Kind::File { size }),
        Just(Kind::Folder),
        path_text()
            .prop_filter_map("no target", |text| LinkTarget::parse(&text).ok())
            .prop_map(|target| Kind::Link { target }),
    ]
}

proptest! {
    #[test]
    fn no_path_leads_out(text in path_text()) {
        let Ok(path) = EntryPath::parse(&text) else { return Ok(()) };
        let mut depth = 0;
        for part in std::path::Path::new(path.as_str()).components() {
            prop_assert!(matches!(part, std::path::Component::Normal(_)), "{text:?}");
            depth += 1;
        }
        prop_assert_eq!(depth, path.depth());
        prop_assert_eq!(path.as_str(), text);
    }

    #[test]
    fn entries_are_read_as_they_are_written(path in path(), kind in kind(), mode: u32, time in time()) {
        let permissions = Permissions::of_mode(mode);
        let message = FromSender::Entry(Entry { path, kind, permissions, time });
        prop_assert_eq!(FromSender::from_frame(&message.to_frame()).unwrap(), message);
    }

    #[test]
    fn requests_are_read_as_they_are_written(index: u32, offset: u64) {
        let message = FromReceiver::Want { index, offset };
        prop_assert_eq!(FromReceiver::from_frame(&message.to_frame()).unwrap(), message);
    }

    #[test]
    fn any_bytes_are_survived(bytes: Vec<u8>) {
        let framed = [&(bytes.len() as u32).to_be_bytes(), &bytes[..]].concat();
        let _ = FromSender::from_frame(&framed);
        let _ = FromReceiver::from_frame(&framed);
        let _ = FromSender::from_frame(&bytes);
    }

    #[test]
    fn any_text_is_a_code_or_not(text: String) {
        if let Ok(code) = text.parse::<Code>() {
            prop_assert_eq!(code.to_text().parse::<Code>().unwrap().to_text(), code.to_text());
        }
    }

    /// Creates a manifest's entries in a real folder: every link leads to an entry inside, or to nothing.
    #[test]
    fn whatever_links_a_manifest_has_they_stay_inside(
        entries in prop::collection::btree_map(
            prop::collection::vec("[ab]", 1..5).prop_map(|names| names.join("/")),
            prop::option::of(prop::collection::vec(prop_oneof!["\\.\\.", "[ab]"], 1..5)),
            1..12,
        )
    ) {
        let folder = tempfile::tempdir().unwrap();
        let inside = folder.path().join("0/1/2/inside");
        fs::create_dir_all(&inside).unwrap();
        let mut manifest = Manifest::default();
        let entries: BTreeMap<_, _> =
            entries.into_iter().map(|(path, link)| (EntryPath::parse(&path).unwrap(), link)).collect();
        for (path, link) in entries {
            let kind = match link {
                None => Kind::Folder,
                Some(names) => match LinkTarget::parse(&names.join("/")) {
                    Ok(target) => Kind::Link { target },
                    Err(_) => continue,
                },
            };
            let (permissions, time) = (Permissions::of_mode(0o755), Time { seconds: 0, nanoseconds: 0 });
            let _ = manifest.push(Entry { path, kind, permissions, time });
        }
        for entry in manifest.entries() {
            let at = inside.join(entry.path.as_str());
            match &entry.kind {
                Kind::Link { target } => symlink(target.as_str(), at).unwrap(),
                _ => fs::create_dir(at).unwrap(),
            }
        }
        for entry in manifest.entries() {
            let outermost = inside.join(entry.path.names().next().unwrap());
            if let Ok(real) = fs::canonicalize(inside.join(entry.path.as_str())) {
                prop_assert!(real.starts_with(&outermost), "{} leads to {}", entry.path, real.display());
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// A receipt that breaks off at any point is completed by the next one.
    #[test]
    fn a_receipt_can_break_off_anywhere(cuts in prop::collection::vec(0u64..700_000, 1..5)) {
        let scene = Scene::new();
        scene.write("tree/a", &content(400_000, 1));
        scene.write("tree/b", &content(200_000, 2));
        let source = scene.source(&["tree"]);
        for cut in cuts {
            let (here, there) = std::os::unix::net::UnixStream::pair().unwrap();
            let there = Breaking::after(there, cut);
            let _ = scene.transfer_over(&source, Options::default(), &Silent, here, there);
        }
        let (sent, received) = scene.transfer(&source, Options::default());
        prop_assert!(sent.is_ok() && received.is_ok());
        scene.check_same();
    }
}
