//! Data that roots read from their shared directory in Redis.

use arbitrary::Arbitrary;
use peersock_overlay::Identity;
use peersock_root::server::directory_fuzzing::{find, written};

use crate::input::{Damage, damaged, one};

#[derive(Debug, Arbitrary)]
struct Written {
    sequence: u64,
    field: Vec<Damage>,
    value: Vec<Damage>,
    record: Vec<Damage>,
}

/// Checks that written data is found, and that all found data is signed by the requested node and by a root.
pub fn root_directory(data: &[u8]) {
    let [node, root] = [1, 2].map(|seed| Identity::from_seed(&[seed; 32]));
    let asked = node.node_id();
    let check = |fields: &[(Vec<u8>, Vec<u8>)], record: &[u8]| {
        let found = find(&asked, fields, record);
        if let Some(found) = &found {
            assert!(found.identity.node_id() == asked && found.verify(), "it is not signed");
        }
        found
    };
    let third = data.len() / 3;
    check(&[(data[..third].to_vec(), data[third..2 * third].to_vec())], &data[2 * third..]);
    let Some(Written { sequence, field, value, record }) = one::<Written>(data) else { return };
    let ((good_field, good_value), good_record) = written(&node, &root, sequence);
    let good = (good_field.clone(), good_value.clone());
    let found = check(std::slice::from_ref(&good), &good_record).expect("what was written");
    let bad = (damaged(&good_field, &field), damaged(&good_value, &value));
    let bad_record = damaged(&good_record, &record);
    check(std::slice::from_ref(&bad), &good_record);
    check(std::slice::from_ref(&good), &bad_record);
    check(&[bad.clone(), bad.clone()], &bad_record);
    // Data of others beside it can at most hide it.
    if let Some(beside) = check(&[bad, good], &good_record) {
        assert_eq!(beside.identity, found.identity);
    }
}
