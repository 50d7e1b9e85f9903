//! Access for the fuzz targets to the records written to Redis, and to the checks of records read. No stable
//! interface.

use std::sync::Arc;

use peersock_overlay::wire::{Channel, Entry, LookUpKey, Referral, Registration, RootRecord};
use peersock_overlay::{Identity, NodeId};

use super::store::{Store, value};
use crate::server::directory::DirectoryTraffic;

const ENDPOINTS: &str = "192.0.2.1:7420";

/// Field of a node's hash, and its value.
pub type Field = (Vec<u8>, Vec<u8>);

/// Returns the records that a root writes for one of its nodes, and for itself.
pub fn written(node: &Identity, root: &Identity, sequence: u64) -> (Field, Vec<u8>) {
    let registration = Registration::sign(node, &root.node_id(), sequence, 600);
    let entry = Entry { identity: *node.public(), channel: Channel(1), registration };
    let field = [&root.node_id().as_bytes()[..], node.node_id().as_bytes()].concat();
    let mut record = Vec::new();
    RootRecord::sign(root, 1, ENDPOINTS).expect("it is short").emit(&mut record);
    ((field, [&b"1900000000"[..], &value(&entry)].concat()), record)
}

/// Looks the node up like another root that reads these fields, and that record for each root.
pub fn find(asked: &NodeId, fields: &[Field], record: &[u8]) -> Option<Referral> {
    let reader = Arc::new(Identity::from_seed(&[0xaa; 32]));
    let (store, traffic) = (Store::new(reader, ENDPOINTS).ok()?, DirectoryTraffic::default());
    let claims = store.claims(&LookUpKey::Id(*asked), &fields.to_vec());
    claims.iter().for_each(|claim| store.note_record(&claim.root, record, &traffic));
    store.choose(claims, &traffic).map(|found| *found)
}
