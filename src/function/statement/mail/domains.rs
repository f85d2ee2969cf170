//! The recipient domains that have limits: those of the configuration, and those for which the relay refused mails because
//! there were too many. All others are passed over without a look.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::Semaphore;

use super::pace::Pace;

/// At most this many domains are followed beside those of the configuration. Refusals of further ones count as the relay's.
const FOLLOWED_MAX: usize = 1000;
/// One that was not refused for so long makes room for another.
const IDLE_AFTER: Duration = Duration::from_secs(600);
/// When so many domains are refused within that time, it is the relay that has too many mails, whatever it answers to whom.
const RELAYS_DOMAINS: usize = 3;
const RELAYS_WITHIN: Duration = Duration::from_secs(5);
/// So many refusals are remembered.
const RECENT_MAX: usize = 4;

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
    /// Attempts that were let in and have not ended.
    inside: AtomicUsize,
    /// Messages that came for it for the first time, and those of all domains before it was followed.
    messages: AtomicU64,
    before: u64,
}

impl Domain {
    fn new(name: &str, limits: DomainLimits, before: u64) -> Arc<Self> {
        Arc::new(Self {
            name: name.to_owned(),
            limits,
            pace: Pace::new(limits.per_second),
            permits: limits.connections.map(|count| Arc::new(Semaphore::new(count))),
            inside: AtomicUsize::new(0),
            messages: AtomicU64::new(0),
            before,
        })
    }

    /// Lets an attempt in while fewer than `max` are inside.
    pub(super) fn enter(self: &Arc<Self>, max: usize) -> Option<Inside> {
        let enter = |inside: usize| (inside < max).then_some(inside + 1);
        let entered = self.inside.fetch_update(Ordering::Relaxed, Ordering::Relaxed, enter);
        entered.is_ok().then(|| Inside(Arc::clone(self)))
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
        let all = self.messages.load(Ordering::Relaxed).saturating_sub(domain.before);
        domain.messages.load(Ordering::Relaxed) * 10 >= all * 9
    }

    /// A mail to the domain was refused because there were too many; the relay accepts `relay`'s mails. Returns the domain when
    /// it is its own limit, and `None` when it is taken for the relay's.
    pub(super) fn refused(&self, domain: &str, now: Duration, relay: &Pace) -> Option<Arc<Domain>> {
        let name = domain.to_ascii_lowercase();
        if self.is_the_relays(&name, now, relay) {
            // Each domain had only its share of what the relay takes.
            self.all().iter().for_each(|domain| domain.pace.forget());
            relay.refused(now, None);
            return None;
        }
        match self.of(&name).or_else(|| self.follow(&name, now)) {
            Some(domain) => {
                domain.pace.refused(now, Some(relay));
                Some(domain)
            }
            None => {
                relay.refused(now, None);
                None
            }
        }
    }

    /// Whether several domains are refused at the same time; or the relay's limit was found already, and it is not one and the
    /// same domain that is refused again and again.
    fn is_the_relays(&self, name: &str, now: Duration, relay: &Pace) -> bool {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        if recent.len() == RECENT_MAX {
            recent.pop_front();
        }
        recent.push_back((now, name.to_owned()));
        if relay.is_found() {
            return recent.len() < RECENT_MAX || recent.iter().any(|(_, other)| other != name);
        }
        let lately = recent.iter().filter(|(at, _)| now.saturating_sub(*at) < RELAYS_WITHIN);
        lately.map(|(_, name)| name).collect::<BTreeSet<_>>().len() >= RELAYS_DOMAINS
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
        assert_eq!(domains.refused("Bank.example", at(10), &relay).unwrap().name, "bank.example");
        assert!(domains.of("bank.example").unwrap().pace.is_limited());
        assert!(!relay.is_limited(), "the other domains go on");
    }

    #[test]
    fn several_domains_that_are_refused_at_once_are_the_relays_limit() {
        let (domains, relay) = (Domains::new(&BTreeMap::new()), Pace::new(None));
        for (second, name) in [(10, "a.example"), (11, "b.example"), (30, "a.example"), (31, "b.example")] {
            assert!(domains.refused(name, at(second), &relay).is_some());
        }
        assert!(domains.refused("c.example", at(32), &relay).is_none());
        assert!(relay.is_limited() && domains.all().iter().all(|domain| !domain.pace.is_limited()));
        assert!(domains.refused("d.example", at(90), &relay).is_none(), "it is still the relay's");
        for _ in 0..2 {
            assert!(domains.refused("d.example", at(91), &relay).is_none());
        }
        assert!(domains.refused("d.example", at(92), &relay).is_some(), "that domain alone is refused");
    }

    #[test]
    fn no_more_than_a_thousand_domains_are_followed_and_those_that_are_not_refused_make_room() {
        let (domains, relay) = (Domains::new(&BTreeMap::new()), Pace::new(None));
        for number in 0..1100 {
            domains.refused(&format!("d{number}.example"), at(10 * number), &relay);
        }
        let names: Vec<String> = domains.all().iter().map(|domain| domain.name.clone()).collect();
        assert!(names.len() <= FOLLOWED_MAX, "{}", names.len());
        assert!(names.contains(&"d1099.example".to_owned()) && !names.contains(&"d0.example".to_owned()));
    }

    #[test]
    fn only_so_many_attempts_are_inside_at_once() {
        let domain = Domain::new("a.example", DomainLimits::default(), 0);
        let (first, second) = (domain.enter(2), domain.enter(2));
        assert!(first.is_some() && second.is_some() && domain.enter(2).is_none());
        drop(first);
        assert!(domain.enter(2).is_some());
    }

    #[test]
    fn a_domain_is_most_of_the_messages_since_it_is_followed() {
        let (domains, relay) = (Domains::new(&BTreeMap::new()), Pace::new(None));
        (0..100).for_each(|_| domains.count(None));
        let domain = domains.refused("a.example", at(10), &relay).unwrap();
        (0..20).for_each(|_| domains.count(Some(&domain)));
        assert!(domains.is_most(&domain));
        (0..3).for_each(|_| domains.count(None));
        assert!(!domains.is_most(&domain));
    }
}
