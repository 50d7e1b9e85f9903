//! Lists of roots in the DNS, which a forger of answers or an owner of a domain can write.

/// Checks lists of roots in the DNS. No list exceeds the limits of length and lifetime, and none has tokens.
///
/// The first byte is the length of the query, which follows. The rest is the answer.
pub fn root_list(data: &[u8]) {
    let (question, answer) = match data {
        [length, rest @ ..] if usize::from(*length) <= rest.len() => rest.split_at((*length).into()),
        _ => (data, data),
    };
    let its = peersock::listed_in(answer, Some(question));
    let Some((roots, ttl)) = peersock::listed_in(answer, None) else { return assert_eq!(its, None) };
    assert!(!roots.is_empty() && roots.len() <= MAX_LISTED);
    assert!((60..=24 * 3600).contains(&ttl.as_secs()), "{ttl:?}");
    assert!(roots.iter().all(|root| root.token().is_none()));
    assert!(its.is_none_or(|its| its == (roots, ttl)));
}

/// Maximum number of roots of one domain that a node uses.
const MAX_LISTED: usize = 8;
