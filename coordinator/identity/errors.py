"""What can go wrong between a caller and the proof of who he is."""

from __future__ import annotations

from agent.base.errors import Conflict, Invalid, NotFound, Permanent, Temporary


class Unauthorized(Permanent):
    code = "identity.unauthorized"
    status = 401
    exit_code = 3
    sentence = "The request you have made requires authentication."
    hint = "Get a token from the identity service, and send it as X-Auth-Token."


class BadCredentials(Unauthorized):
    """One answer for a wrong name, a wrong password and a disabled user, so that none can be told from another."""

    code = "identity.bad-credentials"
    sentence = "The user name or the password is wrong, or the user may not use this scope."
    hint = "Check OS_USERNAME, OS_PASSWORD, OS_PROJECT_NAME and the domains."


class TokenRefused(Unauthorized):
    code = "identity.token-refused"
    sentence = "The token is not valid (any more)."
    hint = "Log in again."


class KeystoneAway(Temporary):
    code = "identity.keystone-away"
    status = 503
    retry_after = 5.0
    sentence = "The identity service {url} can not be asked: {reason}"
    hint = "Try again; an administrator looks whether Keystone answers there."


class KeystoneRefusesUs(Temporary):
    """Their administrator must act, but the caller did nothing wrong."""

    code = "identity.keystone-refuses-us"
    status = 503
    retry_after = 30.0
    sentence = "The identity service does not accept the user {user} of this service."
    hint = "An administrator corrects [identity.keystone]: user, password, domains, and its role service or admin."


class NotInCatalog(Temporary):
    code = "identity.not-in-catalog"
    status = 503
    retry_after = 30.0
    sentence = "The catalog of {url} names no {interface} endpoint of type {types} in region {region}."
    hint = "Add the endpoint to the catalog, or name it in this service's configuration."


class Forbidden(Permanent):
    code = "identity.forbidden"
    status = 403
    exit_code = 3
    sentence = "Policy doesn't allow {rule} to be performed."
    hint = "Ask an administrator for a role that allows it."


class TooManyFailures(Temporary):
    code = "identity.too-many-failures"
    status = 429
    exit_code = 3
    retry_after = 30.0
    sentence = "Too many failed logins of this user from this address."
    hint = "Wait {seconds} seconds, then try again."


class PolicyInvalid(Invalid):
    code = "identity.policy-invalid"
    sentence = "The policy file {path} can not be used: {reason}."
    hint = "Correct the file, or start without it to use the built-in rules."


class NameTaken(Conflict):
    code = "identity.name-taken"
    sentence = "There is already a {noun} named {name}."
    hint = "Choose another name, or use the existing one."


class IdentityNotFound(NotFound):
    code = "identity.not-found"
    sentence = "Could not find {noun}: {id}."


class WeakPassword(Invalid):
    code = "identity.weak-password"
    sentence = "A password needs at least {minimum} characters."
    hint = "Choose a longer one."
