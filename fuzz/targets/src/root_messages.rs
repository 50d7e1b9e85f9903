//! Messages of roots and their clients inside a session, with data signed by others.

use arbitrary::Arbitrary;
use peersock_overlay::wire::{
    NicknameClaim, NicknameMessage, NicknameOwner, Referral, Registration, RootMessage, RootRecord,
};
use peersock_overlay::{Identity, Nickname, NicknameText};

use crate::input::{Damage, damaged, one};

#[derive(Debug, Arbitrary)]
struct Introduction {
    node: u8,
    root: u8,
    sequence: u64,
    lifetime: u32,
    time: u64,
    endpoints: String,
    damages: Vec<Damage>,
}

/// Checks messages of roots and of their clients. A parsed message parses again from its written form. An
/// altered referral is not validly signed, unless it names another node or another root. The same holds for a
/// nickname claim, unless it names another node. Texts of nicknames are written as they are read.
pub fn root_messages(data: &[u8]) {
    read_again(data);
    if let Ok(text) = std::str::from_utf8(data)
        && let Ok(nickname) = text.parse::<NicknameText>()
    {
        assert!(NicknameText::is_one(text) && nickname.nickname.as_str().len() <= Nickname::MAX_LEN);
        assert_eq!(nickname.to_string(), text.to_ascii_lowercase());
        assert_eq!(nickname.to_string().parse(), Ok(nickname));
    }
    let Some(input) = one::<Introduction>(data) else { return };
    let [node, root] = [input.node, input.root].map(|seed| Identity::from_seed(&[seed; 32]));
    claim(&input, &node, &root);
    let Some(record) = RootRecord::sign(&root, input.time, &input.endpoints) else {
        assert!(input.endpoints.len() > RootRecord::MAX_ENDPOINTS);
        return;
    };
    let mut written = Vec::new();
    record.emit(&mut written);
    assert_eq!(RootRecord::parse(&written).as_ref(), Ok(&record));
    let referral = Referral {
        identity: *node.public(),
        registration: Registration::sign(&node, &root.node_id(), input.sequence, input.lifetime),
        root: record,
    };
    assert!(referral.verify());
    let mut message = Vec::new();
    let referred = RootMessage::Referred { id: 1, pass: [7; 32], referral: Box::new(referral.clone()) };
    referred.emit(&mut message);
    assert_eq!(RootMessage::parse(&message), Ok(referred));
    let altered = damaged(&message, &input.damages);
    read_again(&altered);
    if let Ok(RootMessage::Referred { referral: altered, .. }) = RootMessage::parse(&altered) {
        let ids = |one: &Referral| [one.identity.node_id(), one.root.identity.node_id()];
        assert!(!altered.verify() || ids(&altered) != ids(&referral) || *altered == referral);
    }
}

fn claim(input: &Introduction, node: &Identity, root: &Identity) {
    let Ok(nickname) = input.endpoints.parse::<Nickname>() else { return };
    let (root, port) = (root.node_id(), input.time as u16);
    let claim = NicknameClaim::sign(node, &root, &nickname, input.sequence, input.lifetime, port);
    assert!(claim.verify(node.public(), &root, &nickname));
    let owner = NicknameOwner { identity: *node.public(), claim };
    let mut message = Vec::new();
    RootMessage::Nickname(NicknameMessage::Found { id: 1, result: Ok(owner) }).emit(&mut message);
    let altered = RootMessage::parse(&damaged(&message, &input.damages));
    if let Ok(RootMessage::Nickname(NicknameMessage::Found { result: Ok(altered), .. })) = altered {
        let is_signed = altered.claim.verify(&altered.identity, &root, &nickname);
        assert!(!is_signed || altered.identity.node_id() != node.node_id() || altered == owner);
    }
}

fn read_again(data: &[u8]) {
    assert!(RootMessage::parse(data).is_err() || RootMessage::is_one(data));
    let Ok(message) = RootMessage::parse(data) else { return };
    let mut out = Vec::new();
    message.emit(&mut out);
    assert!(out.len() <= data.len(), "what is behind it is left out");
    if let RootMessage::Referred { referral, .. } = &message {
        let record = &referral.root;
        assert!(record.endpoints.len() <= RootRecord::MAX_ENDPOINTS);
        assert!(record.addresses().len() <= 8 && record.streams().len() <= 8);
        assert!(record.addresses().iter().all(peersock_overlay::is_endpoint));
    }
    assert_eq!(RootMessage::parse(&out), Ok(message));
}
