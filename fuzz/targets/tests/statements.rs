//! Random inputs of the targets about signed statements, without libFuzzer.

use peersock_testnet::Random;

/// Many of these are valid: the first choices are small, and half of the inputs have no damage.
#[test]
fn nothing_counts_that_was_not_signed() {
    let mut random = Random::from_seed(1);
    for round in 0..4_000 {
        let mut input: Vec<u8> =
            (0..8).map(|_| random.below(if round % 3 == 0 { 22 } else { 2 }) as u8).collect();
        if round % 2 == 0 {
            // Holder, or head.
            input[2] = if round % 4 == 0 { 5 } else { 7 };
            for _ in 0..random.below(3) {
                input.extend_from_slice(&random.bytes::<4>());
            }
        }
        peersock_fuzz_targets::credentials(&input);
        input[2] %= 3;
        peersock_fuzz_targets::revocation_heads(&input);
    }
}

/// Every byte of a valid statement matters.
#[test]
fn each_flipped_bit_is_refused() {
    // The key, network, holder, time, delegation, certificate and program; then the damage.
    for at in 0..900_u16 {
        let [high, low] = at.to_be_bytes();
        let bit = 1 << (at % 8);
        for program in [0, 1] {
            let holder = if program == 0 { 5 } else { 7 };
            peersock_fuzz_targets::credentials(&[0, 0, holder, 0, 0, 0, program, 0, bit, high, low]);
            // With two successions.
            peersock_fuzz_targets::credentials(&[4, 0, holder, 0, 9, 0, program, 0, bit, high, low]);
        }
        peersock_fuzz_targets::revocation_heads(&[0, 0, 0, 0, 0, 1, 0, 0, bit, high, low]);
        peersock_fuzz_targets::revocation_heads(&[0, 0, 0, 0, 0, 1, 1, 0, bit, high, low]);
    }
}
