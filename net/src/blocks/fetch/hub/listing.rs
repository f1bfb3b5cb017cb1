//! The files below a directory, from one source after the other until one gives them all.

use std::time::{Duration, Instant};

use cordee_core::wire::Message;
use cordee_core::wire::block::Listing;

use super::super::error::FetchError;
use super::super::report::Stage;
use super::links::Heard;
use super::{Answer, Hub, Peer};

/// A file below a directory.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(in super::super) struct Listed {
    pub(in super::super) name: String,
    pub(in super::super) length: u64,
}

impl Hub<'_> {
    /// The files that any of the sources lists below `name`, each once.
    pub(in super::super) fn list(&mut self, name: &str) -> Result<Vec<Listed>, FetchError> {
        let mut all: Vec<Listed> = Vec::new();
        let mut listed = false;
        for peer in 0..self.peers.len() {
            if self.peers[peer].answer != Answer::Directory {
                continue;
            }
            if let Some(mut files) = self.list_of(peer, name)? {
                listed = true;
                all.append(&mut files);
            }
        }
        if !listed {
            let sources = self.peers.iter().map(Peer::progress).collect();
            let why = format!("no source lists the files below {name}");
            return Err(FetchError::Sources { why, sources });
        }
        all.sort();
        all.dedup_by(|a, b| a.name == b.name);
        Ok(all)
    }

    fn list_of(&mut self, peer: usize, name: &str) -> Result<Option<Vec<Listed>>, FetchError> {
        let link = self.links.iter().find(|(_, link)| link.peer == peer && !link.closing);
        let Some(id) = link.map(|(id, _)| *id) else { return Ok(None) };
        let mut files: Vec<Listed> = Vec::new();
        let mut after = String::new();
        loop {
            let Some(link) = self.links.get_mut(&id) else { return Ok(None) };
            link.ask_list(name, &after);
            let deadline = Instant::now() + PAGE_WAIT;
            let more = loop {
                self.tell_progress(Stage::Asking, false, |_| {});
                match self.next(deadline.min(self.progress_due()))? {
                    Some(Heard::Listing { link, payload }) if link == id => {
                        let Ok(page) = Listing::parse(&payload) else { return Ok(None) };
                        for file in page.files.iter() {
                            // In order, or it could go on for ever.
                            if file.name <= after.as_str() || files.len() >= FILES_MAX {
                                return Ok(None);
                            }
                            after = file.name.to_owned();
                            files.push(Listed { name: after.clone(), length: file.length });
                        }
                        break page.more && !page.files.is_empty();
                    }
                    Some(Heard::Refused { link, .. }) if link == id => return Ok(None),
                    Some(heard) => self.take_answer(heard),
                    None => {}
                }
                if Instant::now() >= deadline || !self.links.contains_key(&id) {
                    return Ok(None);
                }
            };
            if !more {
                return Ok(Some(files));
            }
        }
    }
}

/// A page takes no longer.
const PAGE_WAIT: Duration = Duration::from_secs(10);
/// More files than that are no directory that anybody fetches.
const FILES_MAX: usize = 10_000_000;
