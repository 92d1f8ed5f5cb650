//! Which call of the market's API a request is, and what that call wants.

use http::Method;

use crate::market::fault::Target;

/// A call of the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    Register,
    Login,
    Me,
    CreateKey,
    ListKeys,
    DeleteKey,
    EnableKey,
    DisableKey,
    Deposit,
    Checkout,
    Balance,
    Withdraw,
    PaymentAccount,
    Instances,
    Instance,
    CreateInstance,
    ForCurrentUser,
    InvolvedProviders,
    WinningProviders,
    ReportReward,
    Proposals,
    Propose,
    ProposalsByInstance,
    Complete,
    Completions,
    Thread,
    SendMessage,
}

/// Who may make a call.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    Anybody,
    /// A login.
    Person,
    /// A login or a key.
    Account,
}

/// What a call's body is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum BodyKind {
    Nothing,
    Json,
    Form,
}

const METHODS: [Method; 4] = [Method::GET, Method::POST, Method::PUT, Method::DELETE];

// === impl Route ===

impl Route {
    /// The call of this method and path, and the id in it.
    pub(crate) fn find<'a>(method: &Method, segments: &[&'a str]) -> Option<(Route, &'a str)> {
        let route = match (method, segments) {
            (&Method::POST, ["v1", "auth", "register"]) => (Route::Register, ""),
            (&Method::POST, ["v1", "auth", "login"]) => (Route::Login, ""),
            (&Method::GET, ["v1", "auth", "users", "me"]) => (Route::Me, ""),
            (&Method::POST, ["v1", "auth", "create-api-key"]) => (Route::CreateKey, ""),
            (&Method::GET, ["v1", "auth", "list-api-keys"]) => (Route::ListKeys, ""),
            (&Method::DELETE, ["v1", "auth", "delete-api-key"]) => (Route::DeleteKey, ""),
            (&Method::PUT, ["v1", "auth", "enable-api-key"]) => (Route::EnableKey, ""),
            (&Method::PUT, ["v1", "auth", "disable-api-key"]) => (Route::DisableKey, ""),
            (&Method::POST, ["v1", "payment", "deposit"]) => (Route::Deposit, ""),
            (&Method::GET, ["checkout", id]) => (Route::Checkout, *id),
            (&Method::GET, ["v1", "payment", "balance"]) => (Route::Balance, ""),
            (&Method::POST, ["v1", "payment", "withdraw"]) => (Route::Withdraw, ""),
            (&Method::POST, ["v1", "payment", "create-payment-account"]) => (Route::PaymentAccount, ""),
            (&Method::GET, ["v1", "instances"]) => (Route::Instances, ""),
            (&Method::POST, ["v1", "instances"]) => (Route::CreateInstance, ""),
            (&Method::GET, ["v1", "instances", "for-current-user"]) => (Route::ForCurrentUser, ""),
            (&Method::GET, ["v1", "instances", "involved-providers"]) => (Route::InvolvedProviders, ""),
            (&Method::GET, ["v1", "instances", id]) => (Route::Instance, *id),
            (&Method::GET, ["v1", "instances", id, "winning-providers"]) => (Route::WinningProviders, *id),
            (&Method::PUT, ["v1", "instances", id, "report-reward"]) => (Route::ReportReward, *id),
            (&Method::GET, ["v1", "proposals"]) => (Route::Proposals, ""),
            (&Method::POST, ["v1", "proposals", "create", "for-instance", id]) => (Route::Propose, *id),
            (&Method::GET, ["v1", "proposals", "by-instance", id]) => (Route::ProposalsByInstance, *id),
            (&Method::POST, ["v1", "chat", "completions", id]) => (Route::Complete, *id),
            (&Method::GET, ["v1", "chat", "completions", id]) => (Route::Completions, *id),
            (&Method::POST, ["v1", "chat", "send-message", id]) => (Route::SendMessage, *id),
            (&Method::GET, ["v1", "chat", id]) => (Route::Thread, *id),
            (_method, _segments) => return None,
        };
        Some(route)
    }

    /// Whether another method has a call of this path.
    pub(crate) fn has_other_method(segments: &[&str]) -> bool {
        METHODS.iter().any(|method| Route::find(method, segments).is_some())
    }

    /// As the books name it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Route::Register => "POST /v1/auth/register",
            Route::Login => "POST /v1/auth/login",
            Route::Me => "GET /v1/auth/users/me",
            Route::CreateKey => "POST /v1/auth/create-api-key",
            Route::ListKeys => "GET /v1/auth/list-api-keys",
            Route::DeleteKey => "DELETE /v1/auth/delete-api-key",
            Route::EnableKey => "PUT /v1/auth/enable-api-key",
            Route::DisableKey => "PUT /v1/auth/disable-api-key",
            Route::Deposit => "POST /v1/payment/deposit",
            Route::Checkout => "GET /checkout/{id}",
            Route::Balance => "GET /v1/payment/balance",
            Route::Withdraw => "POST /v1/payment/withdraw",
            Route::PaymentAccount => "POST /v1/payment/create-payment-account",
            Route::Instances => "GET /v1/instances",
            Route::Instance => "GET /v1/instances/{id}",
            Route::CreateInstance => "POST /v1/instances",
            Route::ForCurrentUser => "GET /v1/instances/for-current-user",
            Route::InvolvedProviders => "GET /v1/instances/involved-providers",
            Route::WinningProviders => "GET /v1/instances/{id}/winning-providers",
            Route::ReportReward => "PUT /v1/instances/{id}/report-reward",
            Route::Proposals => "GET /v1/proposals",
            Route::Propose => "POST /v1/proposals/create/for-instance/{id}",
            Route::ProposalsByInstance => "GET /v1/proposals/by-instance/{id}",
            Route::Complete => "POST /v1/chat/completions/{id}",
            Route::Completions => "GET /v1/chat/completions/{id}",
            Route::Thread => "GET /v1/chat/{id}",
            Route::SendMessage => "POST /v1/chat/send-message/{id}",
        }
    }

    pub(crate) fn access(self) -> Access {
        match self {
            Route::Register | Route::Login | Route::Checkout => Access::Anybody,
            Route::Me
            | Route::CreateKey
            | Route::ListKeys
            | Route::DeleteKey
            | Route::EnableKey
            | Route::DisableKey
            | Route::Withdraw
            | Route::PaymentAccount => Access::Person,
            Route::Deposit
            | Route::Balance
            | Route::Instances
            | Route::Instance
            | Route::CreateInstance
            | Route::ForCurrentUser
            | Route::InvolvedProviders
            | Route::WinningProviders
            | Route::ReportReward
            | Route::Proposals
            | Route::Propose
            | Route::ProposalsByInstance
            | Route::Complete
            | Route::Completions
            | Route::Thread
            | Route::SendMessage => Access::Account,
        }
    }

    pub(crate) fn body(self) -> BodyKind {
        match self {
            Route::Login => BodyKind::Form,
            Route::Register
            | Route::Deposit
            | Route::Withdraw
            | Route::PaymentAccount
            | Route::CreateInstance
            | Route::ReportReward
            | Route::Propose
            | Route::Complete
            | Route::SendMessage => BodyKind::Json,
            Route::Me
            | Route::CreateKey
            | Route::ListKeys
            | Route::DeleteKey
            | Route::EnableKey
            | Route::DisableKey
            | Route::Checkout
            | Route::Balance
            | Route::Instances
            | Route::Instance
            | Route::ForCurrentUser
            | Route::InvolvedProviders
            | Route::WinningProviders
            | Route::Proposals
            | Route::ProposalsByInstance
            | Route::Completions
            | Route::Thread => BodyKind::Nothing,
        }
    }

    /// Which of a script's faults meet it, beside those on any.
    pub(crate) fn target(self) -> Option<Target> {
        [
            (Route::Instances, Target::Instances),
            (Route::Instance, Target::Instances),
            (Route::Proposals, Target::Proposals),
            (Route::Propose, Target::Create),
            (Route::Balance, Target::Balance),
        ]
        .into_iter()
        .find_map(|(route, target)| (route == self).then_some(target))
    }
}
