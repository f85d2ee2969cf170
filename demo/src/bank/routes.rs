//! The bank's HTTP routes: authorization, parameters, answers.

use std::convert::Infallible;
use std::fmt::Display;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};

use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use serde::Deserialize;
use serde_json::json;

use super::users::{Slice, write};
use super::{Behaviour, Fault, Route, Shared, behaviour};
use crate::fixtures::{Period, Statement, user_index};

/// Users per piece of a `/users.jsonl` answer.
const PIECE_USERS: u32 = 500;

type Bank = State<Arc<Shared>>;
type Answer = Result<Response, Refusal>;

/// All routes.
pub(super) fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/users", get(users))
        .route("/users.jsonl", get(users_jsonl))
        .route("/users-link", get(users_link))
        .route("/accounts/{id}/transactions", get(transactions))
        .route("/healthz", get(healthz))
        .route("/admin/fix", post(fix))
        .fallback(unknown)
        .with_state(shared)
}

/// A refusal: status and reason.
struct Refusal(StatusCode, String);

impl Refusal {
    fn bad_request(reason: impl Display) -> Self {
        Self(StatusCode::BAD_REQUEST, reason.to_string())
    }

    fn not_found(reason: impl Display) -> Self {
        Self(StatusCode::NOT_FOUND, reason.to_string())
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut response = (self.0, Json(json!({ "error": self.1 }))).into_response();
        if self.0 == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

/// The parameters of the users routes.
#[derive(Deserialize)]
struct Page {
    period: Option<String>,
    cursor: Option<String>,
    limit: Option<String>,
}

/// The parameters of the account route.
#[derive(Deserialize)]
struct Month {
    period: Option<String>,
}

impl Shared {
    /// Counts a request, checks its token, then waits for the latency.
    async fn admit(&self, counter: &AtomicU64, headers: &HeaderMap) -> Result<(), Refusal> {
        counter.fetch_add(1, Ordering::Relaxed);
        if let Some(token) = &self.options.token {
            let given = headers.get(header::AUTHORIZATION).and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
            if given != Some(token.as_bytes()) {
                self.counters.unauthorized.fetch_add(1, Ordering::Relaxed);
                return Err(Refusal(StatusCode::UNAUTHORIZED, "the bearer token is missing or wrong".into()));
            }
        }
        if let Some(latency) = self.options.latency {
            tokio::time::sleep(latency).await;
        }
        Ok(())
    }

    /// The page that is asked for; a period, when there is one, must be a month.
    fn page(&self, page: &Page) -> Result<Slice, Refusal> {
        if let Some(period) = &page.period {
            period.parse::<Period>().map_err(Refusal::bad_request)?;
        }
        self.slice(page.cursor.as_deref(), page.limit.as_deref()).map_err(Refusal::bad_request)
    }

    /// Sends a body as its route group behaves at the moment.
    async fn send(&self, route: Route, content_type: &'static str, body: Vec<u8>) -> Response {
        let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static(content_type))]);
        behaviour::answer(self.behaviour(route), headers, Bytes::from(body), &self.shutdown).await
    }
}

/// `GET /users?period=…&cursor=…&limit=…` → `{"users":[…],"next_cursor":"…"}`; the last page's cursor is null.
async fn users(State(bank): Bank, Query(page): Query<Page>, headers: HeaderMap) -> Answer {
    bank.admit(&bank.counters.users, &headers).await?;
    let slice = bank.page(&page)?;
    let mut body = b"{\"users\":[".to_vec();
    bank.write_users(&mut body, slice, b',');
    body.extend_from_slice(b"],\"next_cursor\":");
    write(&mut body, &bank.next_cursor(slice));
    body.push(b'}');
    Ok(bank.send(Route::Users, "application/json", body).await)
}

/// `GET /users.jsonl`: every user from the cursor on, one JSON object a line, streamed.
async fn users_jsonl(State(bank): Bank, Query(page): Query<Page>, headers: HeaderMap) -> Answer {
    const CONTENT_TYPE: &str = "application/x-ndjson";
    bank.admit(&bank.counters.users_jsonl, &headers).await?;
    let slice = bank.page(&page)?;
    if bank.behaviour(Route::Users) != Behaviour::Normal {
        let body = lines(&bank, slice);
        return Ok(bank.send(Route::Users, CONTENT_TYPE, body).await);
    }
    let end = page.limit.map_or(bank.plan.users(), |_| slice.end);
    let pieces = stream::unfold(slice.start, move |start| {
        let piece = Slice { start, end: end.min(start.saturating_add(PIECE_USERS)), limit: PIECE_USERS };
        let text = (start < end).then(|| (lines(&bank, piece), piece.end));
        std::future::ready(text)
    });
    let body = Body::from_stream(pieces.map(Ok::<_, Infallible>));
    Ok(([(header::CONTENT_TYPE, CONTENT_TYPE)], body).into_response())
}

/// Users as lines, each with its end.
fn lines(bank: &Shared, slice: Slice) -> Vec<u8> {
    let mut text = Vec::new();
    bank.write_users(&mut text, slice, b'\n');
    if !text.is_empty() {
        text.push(b'\n');
    }
    text
}

/// `GET /users-link`: an array, the next page's whole address in the header `Link` (RFC 8288).
async fn users_link(State(bank): Bank, Query(page): Query<Page>, headers: HeaderMap) -> Answer {
    bank.admit(&bank.counters.users_link, &headers).await?;
    let slice = bank.page(&page)?;
    let mut body = b"[".to_vec();
    bank.write_users(&mut body, slice, b',');
    body.push(b']');
    let mut response = bank.send(Route::Users, "application/json", body).await;
    if let Some(cursor) = bank.next_cursor(slice) {
        let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
        let host = host.map_or_else(|| bank.address.to_string(), String::from);
        let period = page.period.map_or_else(String::new, |period| format!("&period={period}"));
        let link = format!("<http://{host}/users-link?cursor={cursor}&limit={}{period}>; rel=\"next\"", slice.limit);
        response
            .headers_mut()
            .insert(HeaderName::from_static("link"), HeaderValue::try_from(link).map_err(Refusal::bad_request)?);
    }
    Ok(response)
}

/// `GET /accounts/{id}/transactions?period=2026-10`.
async fn transactions(
    State(bank): Bank,
    Path(id): Path<String>,
    Query(month): Query<Month>,
    headers: HeaderMap,
) -> Answer {
    if let Some(index) = user_index(&id).filter(|index| *index < bank.plan.users()) {
        // Counted before the latency, so that a test sees a call that is still being answered.
        *bank.asked.lock().unwrap_or_else(PoisonError::into_inner).entry(index).or_default() += 1;
    }
    bank.admit(&bank.counters.transactions, &headers).await?;
    let text = month.period.ok_or_else(|| Refusal::bad_request("the parameter period is missing (e.g. 2026-10)"))?;
    let period: Period = text.parse().map_err(Refusal::bad_request)?;
    let known = user_index(&id).filter(|index| *index < bank.plan.users());
    let index = known.ok_or_else(|| Refusal::not_found("there is no such account"))?;
    let statement = match bank.behaviour(Route::Account) {
        Behaviour::Normal => account(&bank, index, period)?,
        _ => bank.fixtures.statement(index, period),
    };
    let mut body = Vec::with_capacity(8192);
    write(&mut body, &statement);
    Ok(bank.send(Route::Account, "application/json", body).await)
}

/// The account's month, or its fault as long as nothing is fixed.
fn account(bank: &Shared, index: u32, period: Period) -> Result<Statement, Refusal> {
    let fault = bank.plan.fault(index).filter(|_| !bank.fixed());
    match fault {
        None => Ok(bank.fixtures.statement(index, period)),
        Some(Fault::NotFound) => Err(Refusal::not_found("the account is not in the ledger of this month")),
        Some(Fault::ServerError) => {
            Err(Refusal(StatusCode::INTERNAL_SERVER_ERROR, "the ledger of this account is locked".into()))
        }
        Some(Fault::BalanceMismatch) => {
            let mut statement = bank.fixtures.statement(index, period);
            statement.closing_balance = off_by_one(&statement.closing_balance);
            Ok(statement)
        }
        Some(Fault::OtherAccount) => Ok(bank.fixtures.statement(other(index, bank.plan.users()), period)),
    }
}

/// The neighbour whose data is sent instead; a bank of one answers with an account that it does not have.
fn other(index: u32, users: u32) -> u32 {
    if index + 1 < users || users < 2 { index + 1 } else { 0 }
}

/// An exact decimal whose last digit is another one.
fn off_by_one(decimal: &str) -> String {
    let (rest, last) = decimal.split_at(decimal.len() - 1);
    format!("{rest}{}", if last == "9" { "8" } else { "9" })
}

/// `GET /healthz`.
async fn healthz(State(bank): Bank) -> &'static str {
    bank.counters.healthz.fetch_add(1, Ordering::Relaxed);
    "ok\n"
}

/// `POST /admin/fix`: fixes all faults.
async fn fix(State(bank): Bank, headers: HeaderMap) -> Answer {
    bank.admit(&bank.counters.fix, &headers).await?;
    bank.fix();
    Ok(Json(json!({ "fixed": true })).into_response())
}

/// Any other path.
async fn unknown(State(bank): Bank, headers: HeaderMap) -> Answer {
    bank.admit(&bank.counters.unknown, &headers).await?;
    Err(Refusal::not_found("no such route (GET /users, /users.jsonl, /users-link, /accounts/{id}/transactions)"))
}
