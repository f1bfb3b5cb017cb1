//! What must hold once all is well: judged by what was said, what each client printed, and what
//! the servers say they hold.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::json;

use crate::book::{Body, Key, ODD_ROOM, Scope};
use crate::failure::{Failure, Result, violated};
use crate::screen::name;
use crate::world::World;

impl World {
    /// Waits until all hold the same and everything is settled, then judges.
    pub(crate) fn settle_and_judge(&mut self) -> Result<()> {
        self.await_terminated()?;
        self.wait("everything that was said is acknowledged", |world| {
            let settled =
                |number: usize| world.parties[number].screen().settled() == world.book.last(number);
            (0..world.parties.len()).all(settled)
        })?;
        self.wait("all servers are linked and hold the same", |world| {
            world.equal_reports().is_some()
        })?;
        for number in 0..self.parties.len() {
            self.await_drained(number)?;
        }
        self.look_for_violations()?;
        self.judge_deaths()?;
        self.judge()?;
        self.book.forget_wipes();
        Ok(())
    }

    /// Waits until a client has, and counts, all that it may see.
    fn await_drained(&mut self, number: usize) -> Result<()> {
        self.ask_status(number)?;
        self.wait("MT = MA = what the client holds", |world| {
            let status = world.parties[number].screen().status;
            match status {
                Some((ma, mt, held)) if ma == mt && ma == held => return true,
                // It was on its way still.
                Some(_) => drop(world.ask_status(number)),
                None => {}
            }
            false
        })
    }

    fn ask_status(&mut self, number: usize) -> Result<()> {
        let asked = {
            let mut screen = self.parties[number].screen();
            screen.status = None;
            screen.status_asked += 1;
            screen.status_asked
        };
        self.parties[number].send(&json!({"status": true, "ref": asked}))
    }

    fn judge(&mut self) -> Result<()> {
        for author in 0..self.parties.len() {
            for number in self.book.judged[author] + 1..=self.book.last(author) {
                self.judge_message((author, number))?;
            }
            self.book.judged[author] = self.book.last(author);
        }
        self.judge_order()?;
        self.judge_counts().map_err(|failure| {
            // Which ones, as far as the newest history tells.
            let told = self.missing_in_history();
            Failure::Violated(format!("{failure}\n{told}\n{}", self.describe()))
        })
    }

    /// Messages of this run's end that the histories do not have.
    fn missing_in_history(&mut self) -> String {
        let mut there = BTreeSet::new();
        let parties = self.parties.len();
        let mut scopes = vec![(0, Scope::All), (1, Scope::Odd)];
        let talks = (0..parties).flat_map(|low| (low + 1..parties).map(move |high| (low, high)));
        scopes.extend(talks.map(|(low, high)| (low, Scope::Talk(low, high))));
        for (viewer, scope) in scopes {
            // One that nobody ever said anything in has none.
            if self.ask_history(viewer, scope).is_ok() {
                let history = self.parties[viewer].screen().history.take().unwrap_or_default();
                there.extend(history.iter().filter_map(|(.., body)| Some(Body::parse(body)?.key)));
            }
        }
        let mut missing = Vec::new();
        for (author, party) in self.parties.iter().enumerate() {
            for (number, copies) in party.screen().sent.iter().rev().take(NEWEST) {
                let said = self.book.get((author, *number));
                if let Some(said) = said.filter(|_| !there.contains(&(author, *number))) {
                    missing.push(format!("{author}.{number}: {said:?}, {copies} copies"));
                }
            }
        }
        format!("it is {} ms; the histories lack {missing:?}", self.now_ms())
    }

    fn ask_history(&mut self, number: usize, scope: Scope) -> Result<()> {
        self.parties[number].screen().history = None;
        let last = match scope {
            Scope::All => json!({"history": {"room": "#all", "last": HISTORY}}),
            Scope::Odd => json!({"history": {"room": ODD_ROOM, "last": HISTORY}}),
            Scope::Talk(low, high) => {
                let other = name(if low == number { high } else { low });
                json!({"history": {"with": other, "last": HISTORY}})
            }
        };
        self.parties[number].send(&last)?;
        self.wait("an answer to a question for history", |world| {
            world.parties[number].screen().history.is_some()
        })
    }

    /// A message that was acknowledged was shown to all who may see it, one that was refused to
    /// none.
    fn judge_message(&mut self, key: Key) -> Result<()> {
        let Some(said) = self.book.get(key) else { return Ok(()) };
        let copies = self.parties[key.0].screen().sent.get(&key.1).copied();
        let viewers = (0..self.parties.len())
            .filter(|viewer| *viewer != key.0 && said.scope.is_seen_by(*viewer));
        let (have, lack): (Vec<usize>, Vec<usize>) =
            viewers.partition(|viewer| self.parties[*viewer].screen().has(key));
        if copies.is_none() {
            let why = self.parties[key.0].screen().refused.get(&key.1).cloned();
            // Where everyone who knew a user died, nobody knows it for a moment.
            let known = why.as_deref() == Some("user_unknown") && self.book.may_be_lost(said, None);
            if !have.is_empty() || !known {
                return violated(format!("{key:?} was refused ({why:?}), and shown to {have:?}"));
            }
            return Ok(());
        }
        if lack.is_empty() {
            return Ok(());
        }
        if !have.is_empty() || !self.book.may_be_lost(said, copies) {
            return violated(format!(
                "{key:?}, {said:?}, acknowledged by {copies:?} servers, was shown to {have:?} and \
                 not to {lack:?}\n{}",
                self.describe()
            ));
        }
        self.lost.push(key);
        Ok(())
    }

    /// Nobody was shown an answer before its question, unless that died on the way.
    fn judge_order(&mut self) -> Result<()> {
        for party in &self.parties {
            let early = std::mem::take(&mut party.screen().early);
            for early in early {
                let said = self.book.get(early.lacking);
                if said.is_none_or(|said| !self.book.may_be_lost(said, None)) {
                    return violated(format!(
                        "{:?} was shown before {:?}, which it comes after\n{}",
                        early.shown,
                        early.lacking,
                        party.screen().tail()
                    ));
                }
            }
        }
        Ok(())
    }

    /// Servers and clients count what is there, each message once.
    fn judge_counts(&self) -> Result<()> {
        let mut rows: BTreeMap<Scope, u64> = BTreeMap::new();
        for (author, party) in self.parties.iter().enumerate() {
            for &number in
                party.screen().sent.keys().filter(|n| !self.lost.contains(&(author, **n)))
            {
                if let Some(said) = self.book.get((author, number)) {
                    *rows.entry(said.scope).or_default() += 1;
                }
            }
        }
        let all: u64 = rows.values().sum();
        for report in self.servers.iter().filter_map(|server| server.report()) {
            if report.ma != all {
                return violated(format!(
                    "{all} messages are there, and a server counts {report:?}"
                ));
            }
        }
        for (number, party) in self.parties.iter().enumerate() {
            let seen = rows.iter().filter(|(scope, _)| scope.is_seen_by(number));
            let seen: u64 = seen.map(|(_, rows)| rows).sum();
            let status = party.screen().status;
            if status != Some((seen, seen, seen)) {
                return violated(format!("p{number} may see {seen}, and counts {status:?}"));
            }
        }
        Ok(())
    }

    /// Everyone is given the same history, in the same order, and what was called final stayed.
    pub(crate) fn judge_history(&mut self) -> Result<()> {
        for number in 0..self.parties.len() {
            self.ask_history(number, Scope::All)?;
        }
        let histories: Vec<_> =
            self.parties.iter().map(|party| party.screen().history.take()).collect();
        let Some(Some(first)) = histories.first() else { return Ok(()) };
        for (number, history) in histories.iter().enumerate() {
            if history.as_ref() != Some(first) {
                return violated(format!("p0 and p{number} are given different histories"));
            }
        }
        for (index, id, body) in first {
            let scope = Body::parse(body).map(|body| body.scope);
            if scope != Some(Scope::All) {
                return violated(format!("in the history of the room of all stands {body:?}"));
            }
            self.judge_final(id, *index)?;
        }
        Ok(())
    }

    fn judge_final(&self, id: &str, index: u64) -> Result<()> {
        for (number, party) in self.parties.iter().enumerate() {
            let said = party.screen().finals.get(&(Scope::All, id.to_owned())).copied();
            if said.is_some_and(|said| said != index) {
                return violated(format!(
                    "p{number} was told that {id} has the index {said:?} for good, and it has {index}"
                ));
            }
        }
        Ok(())
    }
}

/// How many messages of the room of all are compared.
const HISTORY: u64 = 1_000;
/// How many of each author's newest are looked for in a history.
const NEWEST: usize = 50;
