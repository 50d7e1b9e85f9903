//! The cells of `docs/measured/CELLS.md` with real programs behind NATs in network namespaces, and two roots
//! on the open Internet. They cover every pair of the kinds that natlab can build. Needs root and the program
//! `natlab`; without them every test prints that and does nothing.
//!
//! `cargo xtask cells` runs all cells and writes the results into the document; a selection runs with the
//! other tests.

mod cell;
mod kind;
mod programs;
mod special;

/// Generates the tests of one kind with itself and the later kinds, then the same for the next kind.
macro_rules! pairs {
    () => {};
    ($first:ident $first_name:literal $($rest:ident $rest_name:literal)*) => {
        mod $first {
            pairs!(@ $first_name: $first $first_name $($rest $rest_name)*);
        }
        pairs!($($rest $rest_name)*);
    };
    (@ $one:literal: $($other:ident $other_name:literal)*) => {$(
        #[test]
        #[ignore = "cargo xtask cells: one of its cells"]
        fn $other() {
            super::super::cell::of_kinds([$one, $other_name]);
        }
    )*};
}

/// Every pair of kinds.
mod all {
    pairs! {
        open "open"
        ei_ei "ei-ei"
        ei_ad "ei-ad"
        ei_apd "ei-apd"
        apd_apd "apd-apd"
        apd_apd_plus "apd-apd+"
        short_lived "20s"
        double "double"
        cgn "cgn"
        cgn_apd "cgn-apd"
        no_udp "no-udp"
        only_443 "only-443"
        ip6 "ip6"
        ip6_fw "ip6-fw"
        dual "dual"
        nat66 "nat66"
        nat66_apd "nat66-apd"
    }
}

/// One cell for each way in which two nodes come together.
mod selection {
    use super::cell::of_kinds;

    #[test]
    fn two_home_routers_are_punched() {
        of_kinds(["ei-apd", "ei-apd"]);
    }

    #[test]
    fn a_predictable_port_is_guessed() {
        of_kinds(["apd-apd+", "double"]);
    }

    #[test]
    fn a_port_that_nobody_can_guess_is_found_among_many() {
        of_kinds(["apd-apd", "20s"]);
    }

    #[test]
    fn a_root_relays_by_a_stream_where_only_port_443_is_open() {
        of_kinds(["only-443", "cgn"]);
    }

    #[test]
    fn a_root_relays_between_the_families() {
        of_kinds(["ei-ei", "ip6-fw"]);
    }

    #[test]
    fn a_port_that_nobody_can_guess_is_found_among_many_by_ipv6() {
        of_kinds(["nat66", "nat66-apd"]);
    }

    #[test]
    fn two_firewalls_for_ipv6_are_punched() {
        of_kinds(["ip6-fw", "dual"]);
    }
}
