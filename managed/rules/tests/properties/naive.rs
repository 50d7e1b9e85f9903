//! The compiled form beside a naive interpreter of the file, for random files and flows.

use crate::spec::{FlowSpec, Spec, flow, spec};
use peersock_rules::{Compiled, RuleFile, RuleSet, preview};
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    #[test]
    fn compiled_rules_decide_as_the_text_says(
        spec in spec(0..20),
        flows in prop::collection::vec(flow(), 40),
    ) {
        let file = RuleFile::parse(spec.text().as_bytes()).expect("a valid file");
        let compiled = Compiled::new(file.rules.clone());
        let received = RuleSet::decode(&file.rules.encode()).expect("an encoding");
        prop_assert_eq!(&received, &file.rules);
        for flow in &flows {
            let (is_allowed, line) = flow.with(|flow| {
                let decision = compiled.decide(&flow);
                (decision.is_allowed(), decision.rule.map(|rule| rule.line))
            });
            let expected = spec.decide(flow);
            prop_assert_eq!((is_allowed, line), expected, "{:?}\n{}", flow, spec.text());
        }
    }

    #[test]
    fn the_order_of_rules_changes_no_answer(spec in spec(0..20), flows in prop::collection::vec(flow(), 40)) {
        let reversed = Spec { rules: spec.rules.iter().rev().cloned().collect(), ..spec.clone() };
        let of = |spec: &Spec| {
            Compiled::new(RuleFile::parse(spec.text().as_bytes()).expect("a valid file").rules)
        };
        let (one, other) = (of(&spec), of(&reversed));
        for flow in &flows {
            flow.with(|flow| {
                prop_assert_eq!(one.decide(&flow).action, other.decide(&flow).action);
                Ok(())
            })?;
        }
    }

    #[test]
    fn a_rule_that_is_called_ineffective_can_be_removed(
        spec in spec(0..12),
        flows in prop::collection::vec(flow(), 40),
    ) {
        let file = RuleFile::parse(spec.text().as_bytes()).expect("a valid file");
        let Some(warning) = file.warnings.first() else { return Ok(()) };
        let all = file.rules.rules().iter();
        let others: Vec<_> = all.filter(|rule| usize::from(rule.line) != warning.line).cloned().collect();
        prop_assert_eq!(others.len() + 1, file.rules.rules().len());
        let fewer = Compiled::new(RuleSet::new(file.rules.default_action(), others).expect("valid"));
        let all = Compiled::new(file.rules);
        for flow in &flows {
            flow.with(|flow| {
                prop_assert_eq!(all.decide(&flow).action, fewer.decide(&flow).action, "{}", warning);
                Ok(())
            })?;
        }
    }

    #[test]
    fn the_preview_names_exactly_the_flows_that_end(
        present in spec(0..12),
        new in spec(0..12),
        flows in prop::collection::vec(flow(), 0..40),
    ) {
        let of = |spec: &Spec| {
            Compiled::new(RuleFile::parse(spec.text().as_bytes()).expect("a valid file").rules)
        };
        let (before, after) = (of(&present), of(&new));
        let open: Vec<&FlowSpec> = flows.iter().filter(|flow| present.decide(flow).0).collect();
        let ended: Vec<_> = FlowSpec::with_all(&open, |flows| {
            let preview = preview(&before, &after, flows);
            assert_eq!(preview.flows, open.len());
            assert!(preview.ended.iter().all(|flow| flow.before.is_allowed()));
            preview.ended.iter().map(|flow| flow.flow).collect()
        });
        let expected: Vec<_> = (0..open.len()).filter(|at| !new.decide(open[*at]).0).collect();
        prop_assert_eq!(ended, expected);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 30, ..ProptestConfig::default() })]

    #[test]
    fn rules_beyond_the_first_word_decide_too(
        spec in spec(120..200),
        flows in prop::collection::vec(flow(), 40),
    ) {
        let file = RuleFile::parse(spec.text().as_bytes()).expect("a valid file");
        let compiled = Compiled::new(file.rules);
        for flow in &flows {
            let line = flow.with(|flow| compiled.decide(&flow).rule.map(|rule| rule.line));
            prop_assert_eq!(line, spec.decide(flow).1, "{:?}", flow);
        }
    }
}
