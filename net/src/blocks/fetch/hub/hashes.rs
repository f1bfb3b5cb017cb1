//! The hashes of all blocks, from one source that has the version which was agreed on.

use std::time::{Duration, Instant};

use cordee_core::blocks::scheduler::{Fault, Trouble};
use cordee_core::blocks::{BlockHash, Manifest, Root};
use cordee_core::wire::Message;
use cordee_core::wire::block::{HASHES_MAX, Hashes};

use super::super::error::FetchError;
use super::super::link::LinkId;
use super::super::report::Stage;
use super::super::target::empty_root;
use super::agree::Agreed;
use super::links::Heard;
use super::{Answer, Hub};

impl Hub<'_> {
    /// The manifest; `None` when nobody could give one that is right: then it must be agreed anew.
    pub(in super::super) fn manifest(
        &mut self,
        agreed: &Agreed,
    ) -> Result<Option<Manifest>, FetchError> {
        let Some(root) = agreed.root else { return Ok(None) };
        let layout = agreed.layout;
        if layout.blocks() <= 1 {
            let manifest = Manifest::new(layout, root, vec![BlockHash(root.0)]).ok();
            let right = layout.blocks() == 1 || root == empty_root(&layout);
            if !right {
                self.all_lie(agreed, "it gives an empty file a hash that it cannot have");
            }
            return Ok(manifest.filter(|_| right));
        }
        while let Some(id) = self.who_has_hashes(agreed) {
            match self.hashes_of(id, agreed)? {
                Ok(hashes) => match Manifest::new(layout, root, hashes) {
                    Ok(manifest) => return Ok(Some(manifest)),
                    Err(error) => self.lies(id, &error.to_string()),
                },
                Err((fault, detail)) => self.give_no_hashes(id, fault, &detail),
            }
        }
        Ok(None)
    }

    /// A connection on which the version is open, of a source that was not left out.
    fn who_has_hashes(&self, agreed: &Agreed) -> Option<LinkId> {
        let knows = |root: Option<Root>| root.is_some() && root == agreed.root;
        let found = self.links.iter().filter(|(_, link)| {
            let opened = link.opened.as_ref();
            !link.closing
                && self.peers[link.peer].left_out.is_none()
                && opened.is_some_and(|opened| knows(opened.root) && self.is_of(agreed, opened))
        });
        found.min_by_key(|(_, link)| link.peer).map(|(id, _)| *id)
    }

    /// Asks for all pages, a few at a time; in the end they are as many as blocks.
    fn hashes_of(
        &mut self,
        id: LinkId,
        agreed: &Agreed,
    ) -> Result<Result<Vec<BlockHash>, (Fault, String)>, FetchError> {
        let blocks = agreed.layout.blocks();
        let (mut asked, mut hashes) = (0, Vec::new());
        let mut deadline = Instant::now() + PAGE_WAIT;
        while (hashes.len() as u64) < blocks {
            let Some(link) = self.links.get_mut(&id) else {
                return Ok(Err((Fault::Ended, "it closed the connection".to_owned())));
            };
            let window = u64::from(link.requests_max.min(PAGES_AT_ONCE)) * HASHES_MAX as u64;
            while asked < blocks && asked - hashes.len() as u64 + HASHES_MAX as u64 <= window {
                let count = (blocks - asked).min(HASHES_MAX as u64);
                link.ask_hashes(asked, count as u32);
                asked += count;
            }
            self.tell_progress(Stage::Asking, false, |_| {});
            let heard = self.next(deadline.min(self.progress_due()))?;
            if Instant::now() >= deadline {
                return Ok(Err((Fault::Silent, "it does not give the hashes".to_owned())));
            }
            match heard {
                Some(Heard::Hashes { link, payload }) if link == id => {
                    let Ok(page) = Hashes::parse(&payload) else { continue };
                    let there = hashes.len() as u64;
                    let wanted = (blocks - there).min(HASHES_MAX as u64);
                    if page.first != there || page.hashes.len() as u64 != wanted {
                        let detail = "other hashes than were asked for".to_owned();
                        return Ok(Err((Fault::Garbage, detail)));
                    }
                    hashes.extend(page.hashes.iter());
                    deadline = Instant::now() + PAGE_WAIT;
                }
                Some(Heard::Refused { link, reason, .. }) if link == id => {
                    let fault = super::links::fault_of(reason, 0);
                    return Ok(Err((fault, reason.text().to_owned())));
                }
                Some(heard) => self.take_answer(heard),
                None => {}
            }
        }
        Ok(Ok(hashes))
    }

    /// A source whose hashes do not fold into the root that it named.
    fn lies(&mut self, id: LinkId, detail: &str) {
        let Some(link) = self.links.get_mut(&id) else { return };
        let peer = link.peer;
        link.close();
        self.leave_liar_out(peer, detail);
    }

    fn leave_liar_out(&mut self, peer: usize, detail: &str) {
        let address = self.peers[peer].source.to_string();
        self.note(format!("{address} lies about the file, and is left out: {detail}"));
        self.leave_out(peer, Fault::Garbage, detail);
        self.peers[peer].blame(Trouble::Corrupt, detail);
    }

    fn all_lie(&mut self, agreed: &Agreed, detail: &str) {
        for peer in 0..self.peers.len() {
            let lies = match &self.peers[peer].answer {
                Answer::Opened(opened) => opened.root.is_some() && opened.root == agreed.root,
                _ => false,
            };
            if lies {
                self.leave_liar_out(peer, detail);
            }
        }
    }

    /// A source that has the hashes, and does not give them: it may still give blocks.
    fn give_no_hashes(&mut self, id: LinkId, fault: Fault, detail: &str) {
        let Some(link) = self.links.get_mut(&id) else { return };
        let peer = link.peer;
        link.close();
        if fault == Fault::Garbage {
            self.leave_out(peer, fault, detail);
        } else if let Some(trouble) = Trouble::of(fault) {
            self.peers[peer].blame(trouble, detail);
        }
    }
}

/// A page takes no longer.
const PAGE_WAIT: Duration = Duration::from_secs(5);
const PAGES_AT_ONCE: u32 = 8;
