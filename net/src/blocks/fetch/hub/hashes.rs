//! The hashes of all blocks, from one source that has the version which was agreed on.

use std::time::{Duration, Instant};

use cordee_core::blocks::agreement::Version;
use cordee_core::blocks::scheduler::{Fault, Trouble};
use cordee_core::blocks::{BlockHash, Manifest, ManifestError};
use cordee_core::wire::Message;
use cordee_core::wire::block::{HASHES_MAX, Hashes};

use super::super::error::FetchError;
use super::super::link::LinkId;
use super::super::report::Stage;
use super::super::target::empty_root;
use super::Hub;
use super::links::{Heard, Opened};

impl Hub<'_> {
    /// The manifest of a version, from this source; what is wrong with it, if it gives none.
    pub(super) fn manifest_of(
        &mut self,
        peer: usize,
        version: &Version,
    ) -> Result<Result<Manifest, (Trouble, String)>, FetchError> {
        let Version { root, layout } = *version;
        let lie = |error: ManifestError| (Trouble::Corrupt, error.to_string());
        if layout.blocks() == 0 && root != empty_root(&layout) {
            return Ok(Err(lie(ManifestError::Root)));
        }
        if layout.blocks() <= 1 {
            return Ok(Manifest::new(layout, root, vec![BlockHash(root.0)]).map_err(lie));
        }
        let found = self.links.iter().find(|(_, link)| {
            let opened = link.opened.as_ref();
            let knows =
                |opened: &Opened| opened.root == Some(root) && opened.layout() == Some(layout);
            link.peer == peer && !link.closing && opened.is_some_and(knows)
        });
        let Some(id) = found.map(|(id, _)| *id) else {
            return Ok(Err((Trouble::Ended, "it closed the connection".to_owned())));
        };
        let hashes = match self.hashes_of(id, layout.blocks())? {
            Ok(hashes) => hashes,
            Err((fault, detail)) => {
                return Ok(Err((Trouble::of(fault).unwrap_or(Trouble::Ended), detail)));
            }
        };
        Ok(Manifest::new(layout, root, hashes).map_err(lie))
    }

    /// Asks for all pages, a few at a time; in the end they are as many as blocks.
    fn hashes_of(
        &mut self,
        id: LinkId,
        blocks: u64,
    ) -> Result<Result<Vec<BlockHash>, (Fault, String)>, FetchError> {
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
}

/// A page takes no longer.
const PAGE_WAIT: Duration = Duration::from_secs(5);
const PAGES_AT_ONCE: u32 = 8;
