//! The recipient domains that have limits: those of the configuration, and those for which the relay refused mails because
//! there were too many. All others are passed over without a look.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::Semaphore;

use super::aimd::Sign;
use super::pace::Pace;

/// At most this many domains are followed beside those of the configuration. Refusals of further ones count as the relay's.
const FOLLOWED_MAX: usize = 1000;
/// One that was not refused for so long makes room for another.
const IDLE_AFTER: Duration = Duration::from_secs(600);
/// When several domains are refused within this time, it is the relay that has too many mails, whatever it answers to whom ...
const RELAYS_WITHIN: Duration = Duration::from_secs(5);
/// ... unless nearly all refusals are of one: the others are then at least one in so many.
const RELAYS_OTHERS: usize = 4;
/// So many refusals are remembered.
const RECENT_MAX: usize = 64;
/// Fewer messages than this do not tell whether nearly all are of one domain.
const MOST_MIN: u64 = 20;
/// After so many it is asked anew.
const MOST_OF: u64 = 1000;

/// The limits of one recipient domain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DomainLimits {
    /// At most this many mails in any second.
    pub per_second: Option<NonZeroU32>,
    /// At most this many connections carry a mail to it at once.
    pub connections: Option<usize>,
}

/// One recipient domain.
#[derive(Debug)]
pub(super) struct Domain {
    pub(super) name: String,
    pub(super) limits: DomainLimits,
    pub(super) pace: Pace,
    /// Set with `connections`: one permit for each dialogue.
    pub(super) permits: Option<Arc<Semaphore>>,
    /// Attempts that were let in and have not ended, and those of them whose turn has come.
    inside: AtomicUsize,
    begun: AtomicUsize,
    /// Messages that came for it for the first time.
    messages: AtomicU64,
    most: Mutex<Most>,
}

/// Whether nearly all messages are of a domain, asked of the last ones.
#[derive(Debug, Default)]
struct Most {
    /// Messages of all domains, and of this one, when it was last asked anew.
    all: u64,
    own: u64,
    /// What it was then.
    was: bool,
}

impl Domain {
    fn new(name: &str, limits: DomainLimits, before: u64) -> Arc<Self> {
        Arc::new(Self {
            name: name.to_owned(),
            limits,
            pace: Pace::new(limits.per_second),
            permits: limits.connections.map(|count| Arc::new(Semaphore::new(count))),
            inside: AtomicUsize::new(0),
            begun: AtomicUsize::new(0),
            messages: AtomicU64::new(0),
            most: Mutex::new(Most { all: before, ..Most::default() }),
        })
    }

    /// Lets an attempt in while fewer than `waiting` wait for their turns, and fewer than `max` are inside.
    pub(super) fn enter(self: &Arc<Self>, waiting: usize, max: usize) -> Option<Inside> {
        let max = max.min(waiting.saturating_add(self.begun.load(Ordering::Relaxed)));
        let enter = |inside: usize| (inside < max).then_some(inside + 1);
        let entered = self.inside.fetch_update(Ordering::Relaxed, Ordering::Relaxed, enter);
        entered.is_ok().then(|| Inside(Arc::clone(self)))
    }

    /// The turn of an attempt has come; its mail ends when this is dropped.
    pub(super) fn begin(&self) -> Begun<'_> {
        self.begun.fetch_add(1, Ordering::Relaxed);
        Begun(self)
    }
}

/// A mail that was begun.
#[derive(Debug)]
pub(super) struct Begun<'a>(&'a Domain);

impl Drop for Begun<'_> {
    fn drop(&mut self) {
        self.0.begun.fetch_sub(1, Ordering::Relaxed);
    }
}

/// An attempt that was let in. It leaves when this is dropped.
#[derive(Debug)]
pub(super) struct Inside(Arc<Domain>);

impl Drop for Inside {
    fn drop(&mut self) {
        self.0.inside.fetch_sub(1, Ordering::Relaxed);
    }
}

/// All domains with limits.
#[derive(Debug)]
pub(super) struct Domains {
    /// By name in lower case.
    configured: BTreeMap<String, Arc<Domain>>,
    /// Those that were refused.
    followed: RwLock<HashMap<String, Arc<Domain>>>,
    /// Messages that came for the first time.
    messages: AtomicU64,
    /// How many; written under the lock, read without it on the way of every mail.
    count: AtomicUsize,
    /// The last refusals.
    recent: Mutex<VecDeque<(Duration, String)>>,
}

impl Domains {
    /// Those of the configuration, by name.
    pub(super) fn new(configured: &BTreeMap<String, DomainLimits>) -> Self {
        let configured = configured.iter().map(|(name, limits)| {
            let name = name.to_ascii_lowercase();
            (name.clone(), Domain::new(&name, *limits, 0))
        });
        let (followed, messages, count) = (RwLock::default(), AtomicU64::new(0), AtomicUsize::new(0));
        Self { configured: configured.collect(), followed, messages, count, recent: Mutex::default() }
    }

    /// The domain, when it has limits.
    pub(super) fn of(&self, domain: &str) -> Option<Arc<Domain>> {
        let is_any_followed = self.count.load(Ordering::Relaxed) > 0;
        if self.configured.is_empty() && !is_any_followed {
            return None;
        }
        let name = domain.to_ascii_lowercase();
        if let Some(known) = self.configured.get(&name) {
            return Some(known.clone());
        }
        if !is_any_followed {
            return None;
        }
        self.followed.read().unwrap_or_else(PoisonError::into_inner).get(&name).cloned()
    }

    /// Counts a message that came for the first time; `domain` is its domain, when that has limits.
    pub(super) fn count(&self, domain: Option<&Domain>) {
        self.messages.fetch_add(1, Ordering::Relaxed);
        if let Some(domain) = domain {
            domain.messages.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Whether nearly all messages are of that domain.
    pub(super) fn is_most(&self, domain: &Domain) -> bool {
        let mut most = domain.most.lock().unwrap_or_else(PoisonError::into_inner);
        let (messages, of_domain) = (self.messages.load(Ordering::Relaxed), domain.messages.load(Ordering::Relaxed));
        let (all, own) = (messages.saturating_sub(most.all), of_domain.saturating_sub(most.own));
        if all < MOST_MIN {
            return most.was;
        }
        let is_most = own * 10 >= all * 9;
        if all >= MOST_OF {
            *most = Most { all: messages, own: of_domain, was: is_most };
        }
        is_most
    }

    /// A message to the domain was refused for the first time; the relay accepts `relay`'s mails. Returns the domain when
    /// that is taken for its own limit, and `None` when it is taken for the relay's.
    pub(super) fn refused(&self, domain: &str, sign: Sign, now: Duration, relay: &Pace) -> Option<Arc<Domain>> {
        let name = domain.to_ascii_lowercase();
        if self.is_the_relays(&name, now) {
            if relay.refused(now, sign, None) {
                // Each domain had only its share of what the relay takes.
                self.all().iter().for_each(|domain| domain.pace.forget());
            }
            return None;
        }
        let domain = self.of(&name).or_else(|| self.follow(&name, now));
        match &domain {
            Some(domain) => domain.pace.refused(now, sign, Some(relay)),
            None => relay.refused(now, sign, None),
        };
        domain
    }

    /// Whether several domains are refused at the same time, and not nearly always the same one.
    fn is_the_relays(&self, name: &str, now: Duration) -> bool {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        recent.retain(|(at, _)| now.saturating_sub(*at) < RELAYS_WITHIN);
        if recent.len() == RECENT_MAX {
            recent.pop_front();
        }
        recent.push_back((now, name.to_owned()));
        let mut of_each = BTreeMap::<&str, usize>::new();
        recent.iter().for_each(|(_, name)| *of_each.entry(name).or_default() += 1);
        let most = of_each.values().copied().max().unwrap_or_default();
        (recent.len() - most) * RELAYS_OTHERS >= recent.len()
    }

    /// Follows a domain from now on, when there is room.
    fn follow(&self, name: &str, now: Duration) -> Option<Arc<Domain>> {
        let mut followed = self.followed.write().unwrap_or_else(PoisonError::into_inner);
        if followed.len() >= FOLLOWED_MAX {
            let is_used = |domain: &Arc<Domain>| {
                let last = domain.pace.found(now).map(|found| found.last);
                last.is_some_and(|last| now.saturating_sub(last) < IDLE_AFTER)
            };
            followed.retain(|_, domain| is_used(domain));
        }
        if followed.len() >= FOLLOWED_MAX {
            return None;
        }
        let before = self.messages.load(Ordering::Relaxed);
        let domain =
            followed.entry(name.to_owned()).or_insert_with(|| Domain::new(name, DomainLimits::default(), before));
        let domain = domain.clone();
        self.count.store(followed.len(), Ordering::Relaxed);
        Some(domain)
    }

    /// All domains with limits.
    pub(super) fn all(&self) -> Vec<Arc<Domain>> {
        let followed = self.followed.read().unwrap_or_else(PoisonError::into_inner);
        self.configured.values().chain(followed.values()).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_domain_has_a_limit_when_it_is_configured_or_was_refused_in_any_case_of_letters() {
        let limits = DomainLimits { per_second: NonZeroU32::new(5), connections: Some(2) };
        let (domains, relay) = (Domains::new(&BTreeMap::from([("Gmail.com".into(), limits)])), Pace::new(None));
        assert_eq!(domains.of("GMAIL.com").unwrap().limits, limits);
        assert!(domains.of("bank.example").is_none());
        assert_eq!(domains.refused("Bank.example", Sign::Load, at(10), &relay).unwrap().name, "bank.example");
        assert!(domains.of("bank.example").unwrap().pace.is_limited());
        assert!(!relay.is_limited(), "the other domains go on");
    }

    #[test]
    fn two_domains_that_are_refused_within_seconds_are_the_relays_limit() {
        let (domains, relay) = (Domains::new(&BTreeMap::new()), Pace::new(None));
        for (second, name) in [(10, "a.example"), (20, "b.example"), (30, "a.example")] {
            assert!(domains.refused(name, Sign::Load, at(second), &relay).is_some());
        }
        assert!(domains.refused("c.example", Sign::Load, at(32), &relay).is_none());
        assert!(relay.is_limited() && domains.all().iter().all(|domain| !domain.pace.is_limited()));
        assert!(
            domains.refused("d.example", Sign::Load, at(90), &relay).is_some(),
            "one that is long ago says nothing"
        );
    }

    #[test]
    fn a_recipient_of_another_domain_that_is_refused_does_not_make_a_domains_limit_the_relays() {
        let (domains, relay) = (Domains::new(&BTreeMap::new()), Pace::new(None));
        for _ in 0..20 {
            assert!(domains.refused("a.example", Sign::Load, at(10), &relay).is_some());
        }
        assert!(domains.refused("b.example", Sign::Unclear, at(11), &relay).is_some());
        assert!(domains.refused("a.example", Sign::Load, at(12), &relay).is_some());
        let is_limited = |name| domains.of(name).unwrap().pace.is_limited();
        assert_eq!([is_limited("a.example"), is_limited("b.example"), relay.is_limited()], [true, false, false]);
    }

    #[test]
    fn no_more_than_a_thousand_domains_are_followed_and_those_that_are_not_refused_make_room() {
        let (domains, relay) = (Domains::new(&BTreeMap::new()), Pace::new(None));
        for number in 0..1100 {
            domains.refused(&format!("d{number}.example"), Sign::Load, at(10 * number), &relay);
        }
        let names: Vec<String> = domains.all().iter().map(|domain| domain.name.clone()).collect();
        assert!(names.len() <= FOLLOWED_MAX, "{}", names.len());
        assert!(names.contains(&"d1099.example".to_owned()) && !names.contains(&"d0.example".to_owned()));
    }

    #[test]
    fn only_so_many_attempts_wait_inside_and_those_whose_turn_came_take_no_place_of_theirs() {
        let domain = Domain::new("a.example", DomainLimits::default(), 0);
        let (first, second) = (domain.enter(2, 4), domain.enter(2, 4));
        assert!(first.is_some() && second.is_some() && domain.enter(2, 4).is_none());
        let begun = domain.begin();
        let third = domain.enter(2, 4);
        assert!(third.is_some() && domain.enter(2, 4).is_none() && domain.enter(9, 3).is_none());
        drop(begun);
        drop((first, second));
        assert!(domain.enter(2, 4).is_some());
    }

    #[test]
    fn a_domain_is_most_of_the_last_messages_and_never_of_too_few() {
        let (domains, relay) = (Domains::new(&BTreeMap::new()), Pace::new(None));
        (0..100).for_each(|_| domains.count(None));
        let domain = domains.refused("a.example", Sign::Load, at(10), &relay).unwrap();
        assert!(!domains.is_most(&domain), "of none");
        (0..20).for_each(|_| domains.count(Some(&domain)));
        assert!(domains.is_most(&domain));
        (0..3).for_each(|_| domains.count(None));
        assert!(!domains.is_most(&domain));
        (0..3000).for_each(|_| domains.count(None));
        assert!(!domains.is_most(&domain));
        (0..20).for_each(|_| domains.count(Some(&domain)));
        assert!(domains.is_most(&domain), "another run");
    }
}
