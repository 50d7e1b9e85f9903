//! The deliveries of the table in `tests/delivery` whose receiver dies or stops, with a program in C as the
//! sender. `loss.c` has the receivers that live.

#[path = "../../../../tests/delivery/receiver.rs"]
mod receiver;
#[path = "../../../../tests/delivery/scenario.rs"]
mod scenario;
#[path = "../../../../tests/delivery/victim.rs"]
mod victim;

use std::hash::{BuildHasher as _, RandomState};
use std::process::Command;

use self::scenario::Outcome;
use crate::build::{Mode, Program};

#[test]
fn a_sender_is_told_that_the_receiver_has_died_or_stopped() {
    let Some(sender) = Program::new("sender.c").build(Mode::Plain) else { return };
    let random = RandomState::new().hash_one(std::process::id());
    let network = format!("ff{:04x}ffff000000", 1 + random as u16 % 0x7fff);
    victim::play("C", "delivery::receiver_of_the_others", &network, |order| {
        let victim = order.start(None);
        let mut command = Command::new(&sender.path);
        command.arg(&network).arg(victim.address.ip().to_string());
        command.args([victim.address.port().to_string(), order.size.to_string()]);
        let output = command.output().expect("the program was just built");
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
        match said.trim() {
            "delivered" => Outcome::Delivered,
            "error" => Outcome::Error,
            other => panic!("{other:?} is no outcome"),
        }
    });
}

/// The receiver that dies or stops. Without being asked to it does nothing.
#[test]
fn receiver_of_the_others() {
    victim::be_one();
}
