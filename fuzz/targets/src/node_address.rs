//! Texts with node addresses, which others write.

use std::io::Write as _;

use data_encoding::BASE64URL_NOPAD;
use flate2::{Compression, write::ZlibEncoder};
use peersock_pipe::NodeAddress;

/// Checks address texts of nodes. Each parsed text is written and parses to the same value. The input is a
/// text, and also data to pack into one, because a fuzzer would not find the checksum.
pub fn node_address(data: &[u8]) {
    if let Ok(text) = str::from_utf8(data) {
        written_and_read(text);
    }
    let mut packer = ZlibEncoder::new(Vec::new(), Compression::fast());
    packer.write_all(data).expect("memory");
    let packed = BASE64URL_NOPAD.encode(&packer.finish().expect("memory"));
    written_and_read(&format!("peersock-node:1:{packed}"));
}

fn written_and_read(text: &str) {
    let Ok(address) = text.parse::<NodeAddress>() else { return };
    assert_eq!(address.public_key.node_id(), address.id);
    assert!(address.port > 0 && address.networks.values().any(|addresses| !addresses.is_empty()));
    // Our form may spell numbers longer than the input does, and a text has a bound.
    if let Ok(again) = address.to_string().parse() {
        assert_eq!(address, again);
    }
}
