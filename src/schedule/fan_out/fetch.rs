//! Reads a page of users and makes its messages. While a page is committed, the next one is fetched.

use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument;

use crate::base::{Contact, Failure, Outcome};
use crate::function::statement::{Page, PageAddress};
use crate::queue::catalog;
use crate::run::control;
use crate::store::record::{FanOutProgress, RunRecord};

use super::page::PreparedPage;
use super::{Error, FanOut, cursor, disk_full, retry};

/// A page that is fetched while the one before it is committed. Dropped, it ends the call.
#[derive(Debug)]
pub(super) struct Ahead(AbortOnDropHandle<Fetched>);

/// A page, or how the attempt ends without it, and what was learned about the users API.
type Fetched = (Result<PreparedPage, Outcome>, Vec<Contact>);

impl FanOut {
    /// Reads the page at the run's cursor and makes its messages, or tells how the attempt ends.
    pub(super) async fn fetch(&self, run: &RunRecord, contacts: &mut Vec<Contact>) -> Result<PreparedPage, Outcome> {
        let address = serde_json::from_str(&cursor(&run.fan_out)).map_err(|error| {
            let text = format!("the stored cursor does not read: {error}");
            Outcome::Dead { why: Failure::new("data", "fan-out", "cursor", text) }
        })?;
        if run.fan_out.pages >= self.options.users.pages_max {
            return Err(Outcome::Dead { why: self.too_many_pages() });
        }
        // Before the fetch: while the disk is full, every retry would call the users API in vain.
        self.queues.space().admit(&self.options.target).map_err(|full| disk_full(&full))?;
        let page = self.users.page(&address, &run.params, contacts).await.map_err(|fault| fault.into_outcome())?;
        self.prepare(run, page, &address).await.map_err(|error| retry(&error))
    }

    /// Begins to read the page after this one, which is not committed yet. A fault of it counts once its turn comes.
    pub(super) fn fetch_ahead(&self, run: &RunRecord, page: &PreparedPage) -> Option<Ahead> {
        let next = Some(page.next.clone()?);
        // The run as it is once this page is committed.
        let fan_out = FanOutProgress { pages: run.fan_out.pages + 1, next, ..FanOutProgress::default() };
        let (work, run) = (self.clone(), RunRecord { fan_out, ..run.clone() });
        let fetch = async move {
            let mut contacts = Vec::new();
            let page = work.fetch(&run, &mut contacts).await;
            (page, contacts)
        };
        Some(Ahead(AbortOnDropHandle::new(tokio::spawn(fetch.in_current_span()))))
    }

    /// The page that was fetched ahead.
    pub(super) async fn fetched(
        &self,
        Ahead(task): Ahead,
        contacts: &mut Vec<Contact>,
    ) -> Result<PreparedPage, Outcome> {
        match task.await {
            Ok((page, learned)) => {
                learned.into_iter().for_each(|contact| contact.add_to(contacts));
                page
            }
            Err(error) => match error.try_into_panic() {
                // The pool makes of it what it makes of every function's panic.
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(cancelled) => unreachable!("only its owner, this attempt, can end it: {cancelled}"),
            },
        }
    }

    async fn prepare(&self, run: &RunRecord, page: Page, address: &PageAddress) -> Result<PreparedPage, Error> {
        let page = {
            let snapshot = self.queues.store().snapshot()?;
            let target = catalog::look_up(&snapshot, &self.options.target)?;
            let own = catalog::look_up(&snapshot, &self.options.queue)?;
            PreparedPage::new(page, run, address, (&target, &own))
        };
        if !page.is_last() {
            return Ok(page);
        }
        // It may read many runs: beside the runtime, and not in the commit that ends the fetch.
        let run = run.clone();
        let earlier = self.queues.store().read(move |snapshot| control::search_earlier(snapshot, &run)).await?;
        Ok(page.compared_with(earlier))
    }

    fn too_many_pages(&self) -> Failure {
        let max = self.options.users.pages_max;
        let text = format!(
            "the users API has more than {max} pages (raise functions.{}.users.pages_max if that is right)",
            self.options.name
        );
        Failure::new("data", "users", "too-many-pages", text)
    }
}
