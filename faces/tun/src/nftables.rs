//! A table of nf_tables, the packet filter of the kernel, that vanishes with its socket. Setting it needs no
//! external program, and nothing remains of it however the process ends.
//!
//! The layout is that of linux/netfilter/nf_tables.h; `nft --debug=mnl` prints the same for its input.

use std::io;

use netlink_packet_core::{NLM_F_APPEND, NLM_F_CREATE, NLM_F_EXCL};
use netlink_sys::Socket;

use crate::nfnetlink::{self, Attributes, Message};

/// The protocol family of an inet table's packets that an expression examines (NFPROTO_IPV4, NFPROTO_IPV6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    V4 = 2,
    V6 = 10,
}

/// The hook at which a chain sees packets (NF_INET_*).
#[derive(Debug, Clone, Copy)]
pub(crate) enum Hook {
    PreRouting = 0,
    Forward = 2,
    PostRouting = 4,
}

/// The verdict on a packet (NF_DROP, NF_ACCEPT).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Drop = 0,
    Accept = 1,
}

/// The incoming or outgoing interface of a packet (NFT_META_IIF, NFT_META_OIF).
#[derive(Debug, Clone, Copy)]
pub(crate) enum Interface {
    In = 4,
    Out = 5,
}

/// A table with chains of rules, before it is installed in the kernel.
pub(crate) struct Table {
    name: String,
    messages: Vec<Message>,
}

/// A table that the kernel has, until the last copy of its socket is closed.
pub(crate) struct Installed {
    name: String,
    socket: Socket,
}

impl Table {
    pub(crate) fn new(name: String) -> Table {
        let mut table = Attributes::default();
        table.text(NFTA_TABLE_NAME, &name).number(NFTA_TABLE_FLAGS, NFT_TABLE_F_OWNER);
        Table { name, messages: vec![(NFT_MSG_NEWTABLE, NLM_F_CREATE | NLM_F_EXCL, table)] }
    }

    /// Adds a chain that accepts packets by default.
    pub(crate) fn chain(&mut self, name: &str, hook: Hook, priority: i32) {
        let mut place = Attributes::default();
        place.number(NFTA_HOOK_HOOKNUM, hook as u32).number(NFTA_HOOK_PRIORITY, priority.cast_unsigned());
        let mut chain = Attributes::default();
        chain.text(NFTA_CHAIN_TABLE, &self.name).text(NFTA_CHAIN_NAME, name);
        chain.nested(NFTA_CHAIN_HOOK, &place).text(NFTA_CHAIN_TYPE, "filter");
        self.messages.push((NFT_MSG_NEWCHAIN, NLM_F_CREATE, chain));
    }

    /// Adds a rule to the end of a chain.
    pub(crate) fn rule(&mut self, chain: &str, rule: Rule, verdict: Verdict) {
        let mut rule = rule.0;
        let (mut code, mut data, mut immediate) = <(Attributes, Attributes, Attributes)>::default();
        code.number(NFTA_VERDICT_CODE, verdict as u32);
        data.nested(NFTA_DATA_VERDICT, &code);
        immediate.number(NFTA_IMMEDIATE_DREG, NFT_REG_VERDICT).nested(NFTA_IMMEDIATE_DATA, &data);
        push(&mut rule, "immediate", &immediate);
        let mut message = Attributes::default();
        message.text(NFTA_RULE_TABLE, &self.name).text(NFTA_RULE_CHAIN, chain);
        message.nested(NFTA_RULE_EXPRESSIONS, &rule);
        self.messages.push((NFT_MSG_NEWRULE, NLM_F_CREATE | NLM_F_APPEND, message));
    }

    /// Installs the table in the kernel. Needs `CAP_NET_ADMIN`.
    ///
    /// # Errors
    /// The error of the kernel, for example if it has no nf_tables, a version before Linux 5.12's, in which
    /// tables have no owner, or not all expressions.
    pub(crate) fn install(self) -> io::Result<Installed> {
        let socket = nfnetlink::send(&self.messages)?;
        Ok(Installed { name: self.name, socket })
    }
}

impl Installed {
    /// Returns the socket that owns the table.
    pub(crate) fn socket(&self) -> &Socket {
        &self.socket
    }

    /// Replaces the rules of a chain atomically. Needs `CAP_NET_ADMIN`.
    ///
    /// # Errors
    /// The error of the kernel.
    pub(crate) fn replace(
        &self,
        chain: &str,
        rules: impl IntoIterator<Item = (Rule, Verdict)>,
    ) -> io::Result<()> {
        let mut all = Attributes::default();
        all.text(NFTA_RULE_TABLE, &self.name).text(NFTA_RULE_CHAIN, chain);
        let mut table = Table { name: self.name.clone(), messages: vec![(NFT_MSG_DELRULE, 0, all)] };
        rules.into_iter().for_each(|(rule, verdict)| table.rule(chain, rule, verdict));
        nfnetlink::exchange(&self.socket, &table.messages)
    }
}

/// The conditions of a rule, all of which a packet must meet.
#[derive(Debug, Default)]
pub(crate) struct Rule(Attributes);

impl Rule {
    /// Matches packets of this interface.
    pub(crate) fn interface(mut self, which: Interface, index: u32) -> Rule {
        self.meta(which as u32);
        self.compare(NFT_CMP_EQ, &index.to_ne_bytes());
        self
    }

    /// Matches packets of other interfaces.
    pub(crate) fn not_interface(mut self, which: Interface, index: u32) -> Rule {
        self.meta(which as u32);
        self.compare(NFT_CMP_NEQ, &index.to_ne_bytes());
        self
    }

    /// Matches packets whose IP header has these bytes from `offset` on, under this mask.
    pub(crate) fn header(mut self, family: Family, offset: u32, bytes: &[u8], mask: &[u8]) -> Rule {
        self.meta(NFT_META_NFPROTO);
        self.compare(NFT_CMP_EQ, &[family as u8]);
        let mut payload = Attributes::default();
        payload.number(NFTA_PAYLOAD_DREG, NFT_REG_1).number(NFTA_PAYLOAD_BASE, NFT_PAYLOAD_NETWORK_HEADER);
        payload.number(NFTA_PAYLOAD_OFFSET, offset).number(NFTA_PAYLOAD_LEN, bytes.len() as u32);
        push(&mut self.0, "payload", &payload);
        self.mask(mask);
        self.compare(NFT_CMP_EQ, bytes);
        self
    }

    /// Matches packets whose way back to the source leads over this interface.
    pub(crate) fn source_is_behind(mut self, index: u32) -> Rule {
        self.fib(NFT_FIB_RESULT_OIF, NFTA_FIB_F_SADDR);
        self.compare(NFT_CMP_EQ, &index.to_ne_bytes());
        self
    }

    /// Matches packets whose destination is no address of the incoming interface.
    pub(crate) fn destination_is_elsewhere(mut self) -> Rule {
        self.fib(NFT_FIB_RESULT_ADDRTYPE, NFTA_FIB_F_DADDR | NFTA_FIB_F_IIF);
        self.compare(NFT_CMP_NEQ, &RTN_LOCAL.to_ne_bytes());
        self
    }

    /// Matches packets of a connection with packets in both directions, and errors about a packet of a
    /// connection.
    pub(crate) fn answers(mut self) -> Rule {
        let mut state = Attributes::default();
        state.number(NFTA_CT_KEY, NFT_CT_STATE).number(NFTA_CT_DREG, NFT_REG_1);
        push(&mut self.0, "ct", &state);
        self.mask(&(CT_ESTABLISHED | CT_RELATED).to_ne_bytes());
        self.compare(NFT_CMP_NEQ, &[0; 4]);
        self
    }

    fn meta(&mut self, key: u32) {
        let mut meta = Attributes::default();
        meta.number(NFTA_META_KEY, key).number(NFTA_META_DREG, NFT_REG_1);
        push(&mut self.0, "meta", &meta);
    }

    fn fib(&mut self, result: u32, flags: u32) {
        let mut fib = Attributes::default();
        fib.number(NFTA_FIB_FLAGS, flags).number(NFTA_FIB_RESULT, result).number(NFTA_FIB_DREG, NFT_REG_1);
        push(&mut self.0, "fib", &fib);
    }

    fn mask(&mut self, mask: &[u8]) {
        let (mut ones, mut zeros, mut bitwise) = <(Attributes, Attributes, Attributes)>::default();
        ones.bytes(NFTA_DATA_VALUE, mask);
        zeros.bytes(NFTA_DATA_VALUE, &vec![0; mask.len()]);
        bitwise.number(NFTA_BITWISE_SREG, NFT_REG_1).number(NFTA_BITWISE_DREG, NFT_REG_1);
        bitwise.number(NFTA_BITWISE_LEN, mask.len() as u32);
        bitwise.nested(NFTA_BITWISE_MASK, &ones).nested(NFTA_BITWISE_XOR, &zeros);
        push(&mut self.0, "bitwise", &bitwise);
    }

    fn compare(&mut self, how: u32, with: &[u8]) {
        let (mut data, mut compare) = <(Attributes, Attributes)>::default();
        data.bytes(NFTA_DATA_VALUE, with);
        compare.number(NFTA_CMP_SREG, NFT_REG_1).number(NFTA_CMP_OP, how).nested(NFTA_CMP_DATA, &data);
        push(&mut self.0, "cmp", &compare);
    }
}

/// Adds an expression to a rule's expressions.
fn push(expressions: &mut Attributes, name: &str, data: &Attributes) {
    let mut expression = Attributes::default();
    expression.text(NFTA_EXPR_NAME, name).nested(NFTA_EXPR_DATA, data);
    expressions.nested(NFTA_LIST_ELEM, &expression);
}

const NFT_MSG_NEWTABLE: u16 = 0;
const NFT_MSG_NEWCHAIN: u16 = 3;
const NFT_MSG_NEWRULE: u16 = 6;
const NFT_MSG_DELRULE: u16 = 8;

const NFTA_TABLE_NAME: u16 = 1;
const NFTA_TABLE_FLAGS: u16 = 2;
const NFT_TABLE_F_OWNER: u32 = 2;

const NFTA_CHAIN_TABLE: u16 = 1;
const NFTA_CHAIN_NAME: u16 = 3;
const NFTA_CHAIN_HOOK: u16 = 4;
const NFTA_CHAIN_TYPE: u16 = 7;
const NFTA_HOOK_HOOKNUM: u16 = 1;
const NFTA_HOOK_PRIORITY: u16 = 2;

const NFTA_RULE_TABLE: u16 = 1;
const NFTA_RULE_CHAIN: u16 = 2;
const NFTA_RULE_EXPRESSIONS: u16 = 4;
const NFTA_LIST_ELEM: u16 = 1;
const NFTA_EXPR_NAME: u16 = 1;
const NFTA_EXPR_DATA: u16 = 2;

const NFTA_DATA_VALUE: u16 = 1;
const NFTA_DATA_VERDICT: u16 = 2;
const NFTA_VERDICT_CODE: u16 = 1;
const NFT_REG_VERDICT: u32 = 0;
const NFT_REG_1: u32 = 1;

const NFTA_IMMEDIATE_DREG: u16 = 1;
const NFTA_IMMEDIATE_DATA: u16 = 2;

const NFTA_META_DREG: u16 = 1;
const NFTA_META_KEY: u16 = 2;
const NFT_META_NFPROTO: u32 = 15;

const NFTA_CMP_SREG: u16 = 1;
const NFTA_CMP_OP: u16 = 2;
const NFTA_CMP_DATA: u16 = 3;
const NFT_CMP_EQ: u32 = 0;
const NFT_CMP_NEQ: u32 = 1;

const NFTA_PAYLOAD_DREG: u16 = 1;
const NFTA_PAYLOAD_BASE: u16 = 2;
const NFTA_PAYLOAD_OFFSET: u16 = 3;
const NFTA_PAYLOAD_LEN: u16 = 4;
const NFT_PAYLOAD_NETWORK_HEADER: u32 = 1;

const NFTA_BITWISE_SREG: u16 = 1;
const NFTA_BITWISE_DREG: u16 = 2;
const NFTA_BITWISE_LEN: u16 = 3;
const NFTA_BITWISE_MASK: u16 = 4;
const NFTA_BITWISE_XOR: u16 = 5;

const NFTA_FIB_DREG: u16 = 1;
const NFTA_FIB_RESULT: u16 = 2;
const NFTA_FIB_FLAGS: u16 = 3;
const NFT_FIB_RESULT_OIF: u32 = 1;
const NFT_FIB_RESULT_ADDRTYPE: u32 = 3;
const NFTA_FIB_F_SADDR: u32 = 1;
const NFTA_FIB_F_DADDR: u32 = 2;
const NFTA_FIB_F_IIF: u32 = 8;
const RTN_LOCAL: u32 = 2;

const NFTA_CT_DREG: u16 = 1;
const NFTA_CT_KEY: u16 = 2;
const NFT_CT_STATE: u32 = 0;
/// NF_CT_STATE_BIT of IP_CT_ESTABLISHED and IP_CT_RELATED.
const CT_ESTABLISHED: u32 = 2;
const CT_RELATED: u32 = 4;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nfnetlink::{FIRST, batch};

    /// Compares with the bytes that `nft --debug=mnl` sends for `iif lo accept` on a little-endian machine.
    #[cfg(target_endian = "little")]
    #[test]
    fn a_rule_has_the_layout_that_the_kernel_reads() {
        let mut table = Table::new("t".to_owned());
        table.chain("c", Hook::PreRouting, -300);
        table.rule("c", Rule::default().interface(Interface::In, 1), Verdict::Accept);
        let (_, _, rule) = table.messages.last().expect("it is the last");
        let words = |text: &str, kind: u8, length: u8| {
            let mut bytes = vec![length, 0, kind, 0];
            bytes.extend_from_slice(text.as_bytes());
            bytes.resize(bytes.len().next_multiple_of(4), 0);
            bytes
        };
        let be = |kind: u8, value: u8| vec![8, 0, kind, 0, 0, 0, 0, value];
        let nest = |kind: u8, length: u8| vec![length, 0, kind, 0x80];
        let expected = [
            words("t\0", 1, 6),
            words("c\0", 2, 6),
            nest(4, 132),
            nest(1, 36),
            words("meta\0", 1, 9),
            nest(2, 20),
            be(2, 4),
            be(1, 1),
            nest(1, 44),
            words("cmp\0", 1, 8),
            nest(2, 32),
            be(1, 1),
            be(2, 0),
            nest(3, 12),
            vec![8, 0, 1, 0],
            1_u32.to_ne_bytes().to_vec(),
            nest(1, 48),
            words("immediate\0", 1, 14),
            nest(2, 28),
            be(1, 0),
            nest(2, 16),
            nest(2, 12),
            be(1, 1),
        ];
        assert_eq!(rule.0, expected.concat());
        let (batch, last) = batch(&table.messages);
        assert_eq!(last, FIRST + 3);
        assert_eq!(batch.len() % 4, 0);
    }
}
