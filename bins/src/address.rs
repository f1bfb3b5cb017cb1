//! Addresses on the command line: `host:port`, where host is an IPv4 address, an `[IPv6]` address
//! or a name.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::str::FromStr;

use crate::failure::{Failure, failed, usage};

/// The first port of chat servers.
pub(crate) const CHAT_PORT: u16 = 5_000;
/// How many chat servers there are unless told otherwise.
pub(crate) const CHAT_SERVERS: u16 = 5;

/// The port of a block server.
pub(crate) const BLOCK_PORT: u16 = 4_545;
/// Where servers listen unless told otherwise.
pub(crate) const LOOPBACK: &str = "127.0.0.1";

/// A host, or an address with its port.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Address {
    /// A name, an IPv4 address, or an IPv6 address without brackets.
    pub(crate) host: String,
    /// The port, when one was given.
    pub(crate) port: Option<u16>,
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Address, String> {
        let wrong = || format!("{text:?} is not an address: write host:port, for IPv6 [host]:port");
        if text.parse::<Ipv6Addr>().is_ok() {
            return Ok(Address { host: text.to_owned(), port: None });
        }
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) if !text.ends_with(']') => {
                (host, Some(port.parse().map_err(|_| wrong())?))
            }
            _ => (text, None),
        };
        let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let host = match bracketed {
            Some(host) if host.parse::<Ipv6Addr>().is_ok() => host,
            None if is_host(host) => host,
            _ => return Err(wrong()),
        };
        Ok(Address { host: host.to_owned(), port })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ipv6 = self.host.contains(':');
        match (ipv6, self.port) {
            (true, Some(port)) => write!(f, "[{}]:{port}", self.host),
            (false, Some(port)) => write!(f, "{}:{port}", self.host),
            (true, None) => write!(f, "[{}]", self.host),
            (false, None) => f.write_str(&self.host),
        }
    }
}

impl Address {
    /// The same host with `port`, unless it has one of its own.
    pub(crate) fn or_port(&self, port: u16) -> Address {
        Address { host: self.host.clone(), port: Some(self.port.unwrap_or(port)) }
    }

    /// The first IP address of the host.
    ///
    /// # Errors
    ///
    /// When the name is not known.
    pub(crate) fn ip(&self) -> Result<IpAddr, Failure> {
        let port = self.port.unwrap_or(0);
        let unknown = |why: String| failed(format!("{}: no such host ({why})", self.host));
        let mut found = (self.host.as_str(), port)
            .to_socket_addrs()
            .map_err(|error| unknown(error.to_string()))?;
        found.next().as_ref().map(SocketAddr::ip).ok_or_else(|| unknown("no address".to_owned()))
    }
}

/// The servers that a client or an observer is told to ask: positional addresses, and what `-i` and
/// `-p` give. Empty when it was told nothing.
pub(crate) fn servers(
    positional: &[Address],
    host: Option<&Address>,
    port: Option<u16>,
) -> Result<Vec<String>, Failure> {
    let mut servers: Vec<String> =
        positional.iter().map(|address| address.or_port(CHAT_PORT).to_string()).collect();
    if host.is_some() || port.is_some() {
        if host.is_some_and(|host| host.port.is_some()) {
            return Err(usage("-i takes a host; give the port with -p"));
        }
        let loopback = Address { host: Ipv4Addr::LOCALHOST.to_string(), port: None };
        let port = port.unwrap_or(CHAT_PORT);
        servers.push(host.unwrap_or(&loopback).or_port(port).to_string());
    }
    Ok(servers)
}

/// The addresses at which servers are looked for when nobody says where they are.
pub(crate) fn default_servers() -> Vec<String> {
    (CHAT_PORT..CHAT_PORT + CHAT_SERVERS)
        .map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)).to_string())
        .collect()
}

/// The addresses at which servers of all kinds are looked for.
pub(crate) fn all_default_servers() -> Vec<String> {
    let mut servers = default_servers();
    servers.push(SocketAddr::from((Ipv4Addr::LOCALHOST, BLOCK_PORT)).to_string());
    servers
}

/// Letters, digits, `-`, `_` and `.`; RFC 1123, section 2.1, and what is found in the wild.
fn is_host(host: &str) -> bool {
    (1..=253).contains(&host.len())
        && host.chars().all(|c| c.is_alphanumeric() || matches!(c, '.' | '-' | '_'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_written_alike() {
        for (text, host, port) in [
            ("127.0.0.1:5000", "127.0.0.1", Some(5000)),
            ("[::1]:5000", "::1", Some(5000)),
            ("[::1]", "::1", None),
            ("example.org:1", "example.org", Some(1)),
            ("example.org", "example.org", None),
        ] {
            let address: Address = text.parse().expect(text);
            assert_eq!((address.host.as_str(), address.port), (host, port));
            assert_eq!(address.to_string(), text);
        }
        assert_eq!("::1".parse::<Address>().map(|a| a.to_string()), Ok("[::1]".to_owned()));
    }

    #[test]
    fn what_is_no_address_is_refused_with_the_mend() {
        for text in ["", ":5000", "a:b", "a:65536", "a b:1", "[::1:5000", "[x]:1", "::1]:5", "a:-1"]
        {
            let error = text.parse::<Address>().expect_err(text);
            assert!(error.ends_with("write host:port, for IPv6 [host]:port"), "{error}");
        }
    }

    #[test]
    fn i_and_p_stand_for_an_address() {
        let list = |positional: &[&str], host: Option<&str>, port| {
            let parse = |text: &&str| text.parse().expect("an address");
            let positional: Vec<Address> = positional.iter().map(parse).collect();
            servers(&positional, host.as_ref().map(parse).as_ref(), port).ok()
        };
        assert_eq!(list(&[], None, None), Some(vec![]));
        assert_eq!(list(&[], None, Some(7)), Some(vec!["127.0.0.1:7".to_owned()]));
        assert_eq!(list(&[], Some("::1"), None), Some(vec!["[::1]:5000".to_owned()]));
        assert_eq!(
            list(&["a", "b:1"], Some("c"), Some(2)),
            Some(vec!["a:5000".to_owned(), "b:1".to_owned(), "c:2".to_owned()])
        );
        assert_eq!(list(&[], Some("c:3"), None), None);
    }
}
