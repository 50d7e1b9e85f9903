//! Statements of a managed network, and questions about its members.

use std::time::Duration;

use peersock_overlay::membership::{
    Answer, Certificate, CertifyRequest, Code, Credentials, Delegation, Denial, Grant, Head, NetworkKeys,
    NetworkSecret, ProcessCertificate, Question, Revocation, Revocations, Rights, RulesHead, Serial,
    SignedRules, Spare, Succession, Token, UnixTime,
};
use peersock_overlay::{Identity, NetworkId};

use crate::Section;

/// Time at which everything is signed.
const NOW: UnixTime = UnixTime::from_millis(1_800_000_000_000);

const DAY: Duration = Duration::from_secs(86_400);

/// ID of the network whose first key has the seed 31..: a test of the crate `peersock` stretches the key.
const ID: &str = "aacf828316ff3bec";

/// Returns the statements, and the questions. The issuer is node B, the member is node A.
pub(crate) fn sections(issuer: &Identity, member: &Identity) -> [Section; 2] {
    let mut section = Section::new("Managed network; issuer B, member A");
    let network: NetworkId = ID.parse().expect("an ID");
    let [first, next] = [0x31, 0x32].map(|seed| NetworkSecret::from_seed(&[seed; 32]));
    section.hex("network key, of the Ed25519 seed 31..", first.public().as_bytes());
    section.text("network", network);
    section.text("time of signing in ms", NOW.as_millis());
    let serial = Serial::next(NOW, None);

    let delegation = Delegation::sign(&first, network, *issuer.public(), serial, DAY * 90, Rights::ALL);
    let grant = Grant {
        ipv4: Some([10, 7, 0, 2].into()),
        ipv4_length: 24,
        tags: vec!["db".parse().expect("a tag"), "web".parse().expect("a tag")],
        claims: b"level=3".to_vec(),
        ..Grant::new(member.node_id(), "alpha".parse().expect("a name"))
    };
    let certificate = Certificate::sign(issuer, network, grant, serial, DAY).expect("a good grant");
    let plain = Credentials::new(first.public(), delegation.clone(), certificate.clone());
    let bytes = plain.to_bytes();
    section.hex("delegation of all rights to B for 90 days", &bytes[34..34 + Delegation::LEN]);
    section.hex("certificate of A for a day", &bytes[34 + Delegation::LEN..]);
    section.hex("credentials of A", &bytes);

    let program = Identity::from_seed(&[3; 32]);
    let label = Some("web".parse().expect("a label"));
    let process = ProcessCertificate::sign(member, network, &program.node_id(), label, serial, DAY / 24);
    let of_program = plain.of_process(process.clone());
    let with_process = of_program.to_bytes();
    section
        .hex("process certificate web of A for the node of seed 03.., an hour", &with_process[bytes.len()..]);
    section.hex("credentials of that program", &with_process);

    let succession = Succession::sign(&first, network, next.public(), NOW.plus(DAY * 30));
    section
        .hex("succession by the key of seed 32.., the former one ends after 30 days", succession.to_bytes());
    let by_next = Delegation::sign(&next, network, *issuer.public(), serial, DAY * 90, Rights::ALL);
    let succeeded = Credentials::new(first.public(), by_next, certificate).with_successions(&[succession]);
    section.hex("credentials of A by the next key", succeeded.to_bytes());
    for (shown, holder) in [(&plain, member), (&of_program, &program), (&succeeded, member)] {
        let known = NetworkKeys::new(first.public());
        let judged = shown.authenticate_by(&known, network, &holder.node_id());
        judged.and_then(|(admission, _)| admission.check(NOW, &Revocations::default())).expect("they count");
    }

    let mut revoked = Revocations::default();
    let entry = Revocation { min_serial: Serial::next(NOW, Some(serial)), until: NOW.plus(DAY) };
    revoked.add(member.node_id(), entry);
    let head = Head::sign(issuer, delegation.clone(), network, 7, NOW, &revoked);
    section.hex("set that revokes A", revoked.to_bytes());
    section.hex("its head, epoch 7", head.to_bytes());
    let right = Delegation::sign(&first, network, *member.public(), serial, DAY * 90, Rights::RENEWALS);
    let spare = Spare::new(right, DAY);
    section.hex("right of A to renew certificates for a day each, 90 days", spare.to_bytes());
    // The encoding of a file that denies everything.
    let rules = [1, 1, 0, 0, 0, 0];
    let head = RulesHead::sign(issuer, delegation, network, NOW.as_millis(), NOW, &rules);
    section
        .hex("statement about rules that deny everything, and these", SignedRules::new(head, &rules).bytes());
    [section, questions(&plain, process, &program, member, &spare)]
}

fn questions(
    credentials: &Credentials,
    process: ProcessCertificate,
    program: &Identity,
    member: &Identity,
    spare: &Spare,
) -> Section {
    let mut section = Section::new("Questions to a controller, and answers (behind the ids)");
    let request = CertifyRequest {
        run: 0x1111_2222_3333_4444,
        starts: 5,
        token: Some(Token::from_bytes([0x55; 12])),
        name: Some("alpha".parse().expect("a name")),
        description: "Debian 12".to_owned(),
    };
    let token = request.token.as_ref().expect("it has one").hash();
    let label = || "web".parse().expect("a label");
    let name = || "alpha".parse().expect("a name");
    section.hex("request for credentials by the token 55..", Question::Certify(request).to_bytes());
    section.hex("hash of the token, as a controller stores it", token);
    section.hex("which member is alpha?", Question::FindName(name()).to_bytes());
    section.hex("which member has 10.7.0.2?", Question::FindAddress([10, 7, 0, 2].into()).to_bytes());
    section.hex("which program is web.alpha?", Question::FindProgram(label(), name()).to_bytes());
    let credentials = || Box::new(credentials.clone());
    for (name, answer) in [
        (
            "certified, next question after 1,200 s",
            Answer::Certified { time: NOW, renew_after: 1200, credentials: credentials(), spare: None },
        ),
        (
            "pending by the code Z00-000, next question after 5 s",
            Answer::Pending { time: NOW, retry_after: 5, code: Code::from_bits(31) },
        ),
        ("denied: removed", Answer::Denied { time: NOW, reason: Denial::Removed }),
        ("found: A", Answer::Found { identity: *member.public(), credentials: credentials() }),
        ("absent", Answer::Absent),
        (
            "found program: web of A",
            Answer::Program { identity: *program.public(), certificate: Box::new(process) },
        ),
        (
            "certified with the right to renew, next question after 1,200 s",
            Answer::Certified {
                time: NOW,
                renew_after: 1200,
                credentials: credentials(),
                spare: Some(Box::new(spare.clone())),
            },
        ),
    ] {
        section.hex(name, answer.to_bytes());
    }
    section
}
