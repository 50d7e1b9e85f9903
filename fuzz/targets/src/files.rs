//! Messages of the two ends of a file transfer, and codes as people type them.

use std::path::{Component, Path};

use peersock_files::{Code, Entry, EntryPath, FromReceiver, FromSender, Kind, LinkTarget, Manifest, limits};

/// Checks the frames of both ends, one after the other. Each parsed message parses again from its written
/// form, and no accepted manifest leads out of its folder.
pub fn file_messages(data: &[u8]) {
    let mut manifest = Manifest::default();
    let mut rest = data;
    while let Some((header, _)) = rest.split_first_chunk::<4>() {
        let length = 4 + (u32::from_be_bytes(*header) & 0xff_ffff) as usize;
        let Some((frame, behind)) = rest.split_at_checked(length) else { break };
        rest = behind;
        if let Ok(message) = FromReceiver::from_frame(frame) {
            let again = FromReceiver::from_frame(&message.to_frame());
            assert_eq!(again.ok(), Some(message));
        }
        let Ok(message) = FromSender::from_frame(frame) else { continue };
        assert!(frame.len() <= 4 + limits::MESSAGE_BYTES);
        let again = FromSender::from_frame(&message.to_frame());
        assert_eq!(again.ok().as_ref(), Some(&message));
        if let FromSender::Entry(entry) = message {
            let _ = manifest.push(entry);
        }
    }
    manifest.entries().iter().for_each(check_entry);
    let is_sorted = manifest.entries().is_sorted_by(|one, next| one.path < next.path);
    assert!(is_sorted && manifest.bytes() <= limits::FILE_BYTES);
}

fn check_entry(entry: &Entry) {
    let names = Path::new(entry.path.as_str()).components();
    assert!(names.into_iter().all(|name| matches!(name, Component::Normal(_))), "{}", entry.path);
    if let Kind::Link { target } = &entry.kind {
        // Starting at the link's folder, the target's leading `..` names must stay inside the root.
        let mut depth = entry.path.depth() - 1;
        for name in target.as_str().split('/') {
            depth = if name == ".." { depth - 1 } else { depth + 1 };
            assert!(depth >= 1, "{} leads to {}", entry.path, target.as_str());
        }
    }
}

/// Checks texts of codes, paths and link targets. Each parsed text parses again from its written form.
pub fn file_texts(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    if let Ok(code) = text.parse::<Code>() {
        let written = code.to_text();
        let again = written.parse::<Code>().expect("it was written so");
        assert_eq!(again.to_text(), written);
    }
    if let Ok(path) = EntryPath::parse(text) {
        assert_eq!(path.names().collect::<Vec<_>>().join("/"), text);
        assert!(path.depth() <= limits::DEPTH && text.len() <= limits::PATH_BYTES);
        assert!(!text.starts_with('/') && !text.contains(['\0', '\\']));
    }
    if let Ok(target) = LinkTarget::parse(text) {
        assert!(target.as_str() == text && !text.starts_with('/'));
    }
}
