//! What was said, by the one who made it be said: nothing in here comes from the code under test.

use std::fmt;

/// Where a message was said, by the numbers of parties.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Scope {
    /// The room that everyone is in.
    All,
    /// The room of those with odd numbers.
    Odd,
    /// A talk between two: the lesser, the greater.
    Talk(usize, usize),
}

/// The room of those with odd numbers.
pub(crate) const ODD_ROOM: &str = "#odd";

impl Scope {
    pub(crate) fn talk(one: usize, other: usize) -> Scope {
        Scope::Talk(one.min(other), one.max(other))
    }

    /// Whether that party may see what is said here.
    pub(crate) fn is_seen_by(self, party: usize) -> bool {
        match self {
            Scope::All => true,
            Scope::Odd => party % 2 == 1,
            Scope::Talk(low, high) => party == low || party == high,
        }
    }
}

/// One message: its author, and the author's own count from 1.
pub(crate) type Key = (usize, u64);

/// A message's text, which says what it is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Body {
    pub(crate) key: Key,
    pub(crate) scope: Scope,
    /// The last that its author had seen of others in the room of all: it comes after these.
    pub(crate) after: Vec<Key>,
}

impl fmt::Display for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{} ", self.key.0, self.key.1)?;
        match self.scope {
            Scope::All => write!(f, "all")?,
            Scope::Odd => write!(f, "odd")?,
            Scope::Talk(low, high) => write!(f, "{low}-{high}")?,
        }
        self.after.iter().try_for_each(|(author, number)| write!(f, " {author}.{number}"))
    }
}

impl Body {
    /// Reads what [`Display`](fmt::Display) wrote.
    pub(crate) fn parse(text: &str) -> Option<Body> {
        let mut words = text.split(' ');
        let key = |word: &str| {
            let (author, number) = word.split_once('.')?;
            Some((author.parse().ok()?, number.parse().ok()?))
        };
        let first = key(words.next()?)?;
        let scope = match words.next()? {
            "all" => Scope::All,
            "odd" => Scope::Odd,
            talk => {
                let (low, high) = talk.split_once('-')?;
                Scope::Talk(low.parse().ok()?, high.parse().ok()?)
            }
        };
        let after = words.map(key).collect::<Option<Vec<Key>>>()?;
        Some(Body { key: first, scope, after })
    }
}

/// A message that was given to a client.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Said {
    pub(crate) scope: Scope,
    /// When, in milliseconds of the run.
    pub(crate) at_ms: u64,
}

/// Everything that was said, and the deaths of servers.
#[derive(Debug, Default)]
pub(crate) struct Book {
    /// By author; number 1 comes first.
    said: Vec<Vec<Said>>,
    /// When a server lost all it had, in milliseconds of the run.
    wipes_ms: Vec<u64>,
    /// Up to which number of each author all was judged.
    pub(crate) judged: Vec<u64>,
}

impl Book {
    pub(crate) fn new(parties: usize) -> Book {
        Book { said: vec![Vec::new(); parties], wipes_ms: Vec::new(), judged: vec![0; parties] }
    }

    /// Notes a message. Returns its number.
    pub(crate) fn say(&mut self, author: usize, said: Said) -> u64 {
        self.said[author].push(said);
        self.said[author].len() as u64
    }

    pub(crate) fn get(&self, key: Key) -> Option<Said> {
        let index = usize::try_from(key.1.checked_sub(1)?).ok()?;
        self.said.get(key.0)?.get(index).copied()
    }

    pub(crate) fn last(&self, author: usize) -> u64 {
        self.said[author].len() as u64
    }

    pub(crate) fn total(&self) -> u64 {
        self.said.iter().map(|said| said.len() as u64).sum()
    }

    pub(crate) fn wipe(&mut self, at_ms: u64) {
        self.wipes_ms.push(at_ms);
    }

    /// All servers hold the same: whoever dies from now on takes nothing with it.
    pub(crate) fn forget_wipes(&mut self) {
        self.wipes_ms.clear();
    }

    /// Whether every server that held a message may have died since it was said: `copies` held
    /// it when it was acknowledged; one, if it was not.
    pub(crate) fn may_be_lost(&self, said: Said, copies: Option<u64>) -> bool {
        let wipes = self.wipes_ms.iter().filter(|at| **at >= said.at_ms).count() as u64;
        wipes >= copies.unwrap_or(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_reads_as_it_was_written() {
        for (scope, after) in [
            (Scope::All, vec![(1, 7), (12, 345)]),
            (Scope::Odd, vec![]),
            (Scope::talk(9, 2), vec![(0, 1)]),
        ] {
            let body = Body { key: (3, 99), scope, after };
            assert_eq!(Body::parse(&body.to_string()), Some(body));
        }
        for wrong in ["", "3", "3.1", "3.1 most", "3.1 all 7", "x.1 all"] {
            assert_eq!(Body::parse(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn a_message_may_be_lost_once_as_many_servers_died_as_held_it() {
        let mut book = Book::new(1);
        let said = Said { scope: Scope::All, at_ms: 100 };
        book.wipe(50);
        assert!(!book.may_be_lost(said, None), "that was before");
        book.wipe(100);
        assert!(book.may_be_lost(said, None) && book.may_be_lost(said, Some(1)));
        assert!(!book.may_be_lost(said, Some(2)));
        book.wipe(200);
        assert!(book.may_be_lost(said, Some(2)));
        book.forget_wipes();
        assert!(!book.may_be_lost(said, None));
    }
}
