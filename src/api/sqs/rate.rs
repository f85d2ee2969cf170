//! How often each caller may call.

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};

use super::access::Caller;
use super::error::{Code, Error};
use super::{Access, Options};

/// A limit for each caller. What is not used is saved up for one second.
#[derive(Debug)]
pub(super) struct Rates {
    /// The requests of callers without a key.
    anyone: Option<DefaultDirectRateLimiter>,
    /// By the keys' names.
    keys: BTreeMap<String, DefaultDirectRateLimiter>,
}

impl Rates {
    pub(super) fn new(options: &Options) -> Self {
        let limiter = |per_second: NonZeroU32| RateLimiter::direct(Quota::per_second(per_second));
        match (options.requests_per_second, &options.access) {
            (None, _) => Self { anyone: None, keys: BTreeMap::new() },
            (Some(limit), Access::Anyone) => Self { anyone: Some(limiter(limit)), keys: BTreeMap::new() },
            (Some(limit), Access::Keys(keys)) => {
                let keys = keys.iter().map(|key| (key.name.clone(), limiter(limit))).collect();
                Self { anyone: None, keys }
            }
        }
    }

    /// Counts a request of that caller, or refuses it; SDKs try a refused one again after a pause.
    pub(super) fn check(&self, caller: &Caller<'_>) -> Result<(), Error> {
        let limiter = match caller {
            Caller::Anyone => self.anyone.as_ref(),
            Caller::Key(key) => self.keys.get(&key.name),
        };
        match limiter.map(RateLimiter::check) {
            None | Some(Ok(())) => Ok(()),
            Some(Err(_)) => {
                let text = "Rate exceeded: more requests than api.sqs.requests_per_second allows.";
                Err(Error::new(Code::RequestThrottled, text))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::sqs::AccessKey;

    fn key(name: &str) -> AccessKey {
        let all = || vec!["*".to_owned()];
        AccessKey { name: name.into(), id: name.into(), secret: "secret".into(), queues: all(), actions: all() }
    }

    fn options(per_second: Option<u32>, access: Access) -> Options {
        Options {
            listen: ([127, 0, 0, 1], 0).into(),
            tls: None,
            region: "us-east-1".into(),
            account: "000000000000".into(),
            url: None,
            access,
            requests_per_second: per_second.and_then(NonZeroU32::new),
            configured: std::collections::BTreeSet::new(),
        }
    }

    #[test]
    fn each_key_has_a_limit_of_its_own() {
        let (hasty, calm) = (key("hasty"), key("calm"));
        let rates = Rates::new(&options(Some(2), Access::Keys(vec![hasty.clone(), calm.clone()])));
        let refused = (0..1000).filter(|_| rates.check(&Caller::Key(&hasty)).is_err()).count();
        assert!(refused > 900, "{refused} of 1000 at once are refused");
        assert_eq!(rates.check(&Caller::Key(&calm)), Ok(()));
    }

    #[test]
    fn callers_without_keys_share_one_limit_and_without_a_limit_none_is_refused() {
        let rates = Rates::new(&options(Some(2), Access::Anyone));
        assert_eq!(rates.check(&Caller::Anyone), Ok(()));
        let refused = (0..1000).filter_map(|_| rates.check(&Caller::Anyone).err()).next().expect("it is too many");
        assert_eq!(refused.code, Code::RequestThrottled);
        let rates = Rates::new(&options(None, Access::Anyone));
        assert!((0..1000).all(|_| rates.check(&Caller::Anyone).is_ok()));
    }
}
