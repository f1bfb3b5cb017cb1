//! Addresses as people write them: `host:port`, IPv4, `[IPv6]` or a name.

use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, ToSocketAddrs};

/// The addresses of `host:port`, at most [`ADDRESSES_MAX`]. Blocks for as long as the resolver
/// does, unless the host is a number.
pub(crate) fn resolve(address: &str) -> io::Result<Vec<SocketAddr>> {
    if let Ok(address) = address.parse() {
        return Ok(vec![address]);
    }
    Ok(address.to_socket_addrs()?.take(ADDRESSES_MAX).collect())
}

/// The address as 128 bits, IPv4 mapped into IPv6, so that both kinds compare.
pub(crate) fn bits(ip: IpAddr) -> u128 {
    mapped(ip).to_bits()
}

/// Whether it is this machine, also when IPv4 is written as IPv6.
pub(crate) fn is_loopback(ip: IpAddr) -> bool {
    ip.to_canonical().is_loopback()
}

fn mapped(ip: IpAddr) -> Ipv6Addr {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    }
}

/// How many addresses of a name are tried.
const ADDRESSES_MAX: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_resolved_without_a_resolver() {
        let v4 = resolve("127.0.0.2:5000").expect("a number");
        assert_eq!(v4, ["127.0.0.2:5000".parse().expect("a number")]);
        let v6 = resolve("[::1]:5000").expect("a number");
        assert_eq!(v6, ["[::1]:5000".parse().expect("a number")]);
        assert!(resolve("no port").is_err());
    }

    #[test]
    fn an_address_is_the_same_in_both_families() {
        let (v4, v6) = ("127.0.0.1", "::ffff:127.0.0.1");
        let [v4, v6] = [v4, v6].map(|ip| ip.parse::<IpAddr>().expect("a number"));
        assert_eq!(bits(v4), bits(v6));
        assert!(is_loopback(v4) && is_loopback(v6));
        assert!(!is_loopback("10.0.0.1".parse().expect("a number")));
    }
}
