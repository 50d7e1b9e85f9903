//! `peersock network new`, `add` and `remove`.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::path::Path;

use peersock::overlay::{NodeId, PublicIdentity};
use peersock::{Network, NetworkId};
use toml_edit::{Array, ArrayOfTables, DocumentMut, InlineTable, Item, Table, TableLike, Value, value};

use super::file::{self, NetworkFile};
use super::{Add, Member, New, Remove};
use crate::args::{check_new_network_file, network_file};
use crate::failure::{Failure, Outcome};
use crate::output::print;

/// Beginning of a new file.
const NEW_FILE_HEAD: &str = "\
# A static network of peersock: only the members listed here take part. All of them have this file.
# `peersock network add` adds members; docs/use/NETWORKS.md describes every field.

";

pub(super) fn new(args: &New) -> Outcome {
    if let Some(id) = args.file.to_str().and_then(|name| name.parse::<NetworkId>().ok()) {
        return Err(Failure::usage(
            format_args!("{id} is a network ID, so a file with that name could not be used"),
            "give a name such as office.toml; a network whose ID begins with ff needs no file",
        ));
    }
    check_new_network_file(&args.file)?;
    let identity = args.state.lasting_identity()?;
    let mut document = DocumentMut::new();
    document.insert("network", value(random_id()?.to_string()));
    if let Some(mut key) = document.key_mut("network") {
        key.leaf_decor_mut().set_prefix(NEW_FILE_HEAD);
    }
    if args.secret {
        document.insert("psk", value(hex(&random::<32>()?)));
        if let Some(mut key) = document.key_mut("psk") {
            key.leaf_decor_mut().set_prefix("# Anyone who knows this and a member's key can act as the member. Keep the file to the members.\n");
        }
    }
    if !args.roots.is_empty() {
        document.insert("roots", value(args.roots.iter().map(|root| root.trim()).collect::<Array>()));
    }
    push(&mut document, &identity.to_string(), &args.member, &args.file)?;
    let network = file::create(&args.file, &document)?;
    print(format_args!(
        "made {}: network {} with this node{}; add others with `peersock network add`",
        args.file.display(),
        network.id(),
        called(args.member.name.as_deref())
    ))
}

pub(super) fn add(args: &Add) -> Outcome {
    let (path, origin) = network_file(&args.file)?;
    let mut file = NetworkFile::open(&path).map_err(|failure| failure.and(origin))?;
    let identity = match &args.key {
        Some(text) => parse_key(text)?,
        None => args.state.lasting_identity()?,
    };
    push(&mut file.document, &identity.to_string(), &args.member, &path)?;
    let network = file.save()?;
    print(format_args!(
        "added {}{} to network {}; it has {}; all need the new file, and nodes that run a restart",
        identity.node_id(),
        called(args.member.name.as_deref()),
        network.id(),
        super::count(network.members())
    ))
}

pub(super) fn remove(args: &Remove) -> Outcome {
    let (path, origin) = network_file(&args.file)?;
    let mut file = NetworkFile::open(&path).map_err(|failure| failure.and(origin))?;
    let network = Network::parse_toml(&file.document.to_string())?;
    let found = network.members().iter().position(|member| {
        member.name.as_deref().is_some_and(|name| name.eq_ignore_ascii_case(&args.member))
            || member.identity.to_string() == args.member
            || member.identity.node_id().to_string() == args.member
    });
    let at = found.ok_or_else(|| {
        Failure::usage(
            format_args!("{} has no member `{}`", path.display(), args.member),
            format_args!("list them with `peersock network show {}`", path.display()),
        )
    })?;
    if network.members().len() == 1 {
        return Err(Failure::usage(
            format_args!("`{}` is the last member of network {}", args.member, network.id()),
            "remove the file instead, with rm",
        ));
    }
    match file.document.get_mut("member") {
        Some(Item::ArrayOfTables(members)) => drop(members.remove(at)),
        Some(Item::Value(Value::Array(members))) => drop(members.remove(at)),
        _ => return Err(odd(&path)),
    }
    let network = file.save()?;
    print(format_args!(
        "removed {} from network {}; it has {}; all need the new file, and nodes that run a restart",
        args.member,
        network.id(),
        super::count(network.members())
    ))
}

/// Appends a member, in the form that the file uses for its members.
fn push(document: &mut DocumentMut, key: &str, member: &Member, path: &Path) -> Outcome {
    // Rejects `localhost` (RFC 6761, 6.3), because members' programs that use it must not reach this member.
    if member.name.as_deref().is_some_and(|name| name.eq_ignore_ascii_case("localhost")) {
        return Err(Failure::usage(
            "every machine calls itself `localhost`; as a member's name it would lead other members' \
             programs to this machine",
            "choose another name",
        ));
    }
    match document.entry("member").or_insert(Item::ArrayOfTables(ArrayOfTables::new())) {
        Item::ArrayOfTables(members) => {
            let mut table = Table::new();
            fill(&mut table, key, member);
            table.decor_mut().set_prefix("\n");
            members.push(table);
        }
        Item::Value(Value::Array(members)) => {
            let mut table = InlineTable::new();
            fill(&mut table, key, member);
            members.push(table);
        }
        _ => return Err(odd(path)),
    }
    Ok(())
}

fn fill(table: &mut dyn TableLike, key: &str, member: &Member) {
    let list = |items: &mut dyn Iterator<Item = String>| value(items.collect::<Array>());
    if let Some(name) = &member.name {
        table.insert("name", value(name));
    }
    table.insert("key", value(key));
    if !member.addresses.is_empty() {
        table.insert("addresses", list(&mut member.addresses.iter().map(ToString::to_string)));
    }
    if !member.routes.is_empty() {
        table.insert("routes", list(&mut member.routes.iter().cloned()));
    }
    if !member.endpoints.is_empty() {
        table.insert("endpoints", list(&mut member.endpoints.iter().cloned()));
    }
}

/// Returns the error of a file that cannot be edited. The library has parsed the file, so this cannot happen
/// while both parsers agree.
fn odd(path: &Path) -> Failure {
    Failure::new(
        format_args!("the members in {} are not a list that can be edited", path.display()),
        "write each as a [[member]]; docs/use/NETWORKS.md has an example",
    )
}

/// Parses a public key, or takes it out of what `peersock id` prints, in any of its forms.
fn parse_key(text: &str) -> Outcome<PublicIdentity> {
    let text = text.trim();
    let words = text.split(|c: char| c.is_whitespace() || "\"{}:,".contains(c));
    let keys: BTreeSet<_> = words.filter(|word| word.parse::<PublicIdentity>().is_ok()).collect();
    let text = keys.first().filter(|_| keys.len() == 1).copied().unwrap_or(text);
    text.parse().map_err(|error: <PublicIdentity as std::str::FromStr>::Err| {
        let error: &dyn Display = match text.parse::<NodeId>() {
            Ok(_) => &"it is a node ID",
            Err(_) => &error,
        };
        Failure::usage(
            format_args!("`{text}` is not a public key: {error}"),
            "give the 86 characters that `peersock id --key` prints on that machine",
        )
    })
}

fn called(name: Option<&str>) -> String {
    name.map(|name| format!(" ({name})")).unwrap_or_default()
}

/// Returns a unique ID of a static network: `fe` and 56 random bits.
fn random_id() -> Outcome<NetworkId> {
    let mut bytes = [0; 8];
    bytes[0] = 0xfe;
    bytes[1..].copy_from_slice(&random::<7>()?);
    Ok(hex(&bytes).parse().expect("16 hexadecimal digits that begin with fe"))
}

fn random<const N: usize>() -> Outcome<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(Failure::no_randomness)?;
    Ok(bytes)
}

/// Formats bytes as lower-case hexadecimal digits.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
