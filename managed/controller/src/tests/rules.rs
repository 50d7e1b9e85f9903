//! Access rules: kept with their version, and signed by the controller that serves.

use super::{DAY, HOUR, Lab, MINUTE, NOW, place};

fn apply(lab: &mut Lab, rules: &[u8], known: Option<u64>) -> u64 {
    lab.controller.apply_rules(lab.now, "a person", (b"file", rules), known).expect("stored")
}

#[test]
fn rules_are_signed_with_a_version_that_only_grows_and_survive_a_restart() {
    let (_folder, path) = place();
    let mut lab = Lab::at(&path);
    assert_eq!(lab.controller.rules().expect("readable"), None, "nobody has applied any");
    let first = apply(&mut lab, b"one", None);
    assert_eq!(first, NOW.as_millis());
    let second = apply(&mut lab, b"two", None);
    assert_eq!(second, first + 1, "within one millisecond");
    let signed = lab.controller.rules().expect("readable").expect("applied");
    assert_eq!((signed.head().version(), signed.rules()), (second, b"two".as_slice()));
    let keys = lab.controller.network_keys();
    let network = lab.controller.network();
    signed.head().verify(&keys, network, NOW, &Default::default()).expect("it counts");
    let third = apply(&mut lab, b"three", Some(second + 50));
    assert_eq!(third, second + 51, "members know later ones than an old store");
    let signed = lab.controller.rules().expect("readable");
    drop(lab);
    let mut lab = Lab::open(&path, 3);
    lab.pass(HOUR);
    assert_eq!(lab.controller.rules().expect("readable"), signed, "the same statement");
    let stored = lab.controller.stored_rules().expect("readable").expect("applied");
    assert_eq!((stored.version, stored.file.as_slice()), (third, b"file".as_slice()));
}

#[test]
fn a_renewed_right_signs_the_same_version_again() {
    let mut lab = Lab::new();
    let version = apply(&mut lab, b"rules", None);
    let before = lab.controller.rules().expect("readable").expect("applied");
    lab.pass(40 * DAY);
    lab.controller.delegate(lab.now).expect("it has the key");
    lab.pass(MINUTE);
    let after = lab.controller.rules().expect("readable").expect("applied");
    assert_eq!((after.head().version(), after.rules()), (version, before.rules()));
    if after.head().delegation() != before.head().delegation() {
        assert!(after.head().rank() > before.head().rank(), "members take it in the place of the former one");
    }
}
