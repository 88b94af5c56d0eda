"""What can be wrong with a request before any resource is looked at."""

from __future__ import annotations

from agent.base.errors import Invalid, NotFound, Permanent


class BadRequest(Invalid):
    code = "api.bad-request"


class InvalidField(Invalid):
    """A value of the body does not fit; the sentence is the one clients of Cinder compare with."""

    code = "api.invalid-field"
    sentence = "Invalid input for field/attribute {field}. Value: {value}. {reason}"


class NeedsProject(Invalid):
    """The credentials are for the system or a domain, and what is made must belong to a project."""

    code = "api.needs-project"
    sentence = "Invalid input received: the credentials name no project that this could belong to."
    hint = "Log in to a project: set OS_PROJECT_NAME, and unset OS_SYSTEM_SCOPE."


class MalformedBody(Invalid):
    code = "api.malformed-body"
    sentence = "Malformed message body: {reason}."
    hint = "Send one JSON object."


class BodyTooLarge(Permanent):
    code = "api.body-too-large"
    status = 413
    sentence = "Request is too large."
    hint = "At most {limit} bytes are read."


class UnsupportedMedia(Permanent):
    code = "api.unsupported-media"
    status = 415
    sentence = "Unsupported Content-Type {type}."
    hint = "Send the body as application/json."


class MalformedUrl(Invalid):
    code = "api.malformed-url"
    sentence = "Malformed request url"
    hint = "The project in the address is not the one of the token."


class NoSuchPath(NotFound):
    code = "api.no-such-path"
    sentence = "The resource could not be found: {method} {path}."
    hint = "An id in it that is empty, or a slash at its end, is not passed over."


class NotServed(NotFound):
    code = "api.not-served"
    sentence = "{method} {path} is part of the Block Storage API that this release does not serve."
    hint = "docs/reference/not-served.md lists them all."


class NoSuchAction(Invalid):
    code = "api.no-such-action"
    sentence = "There is no such action: {action}."


class ActionNotServed(Invalid):
    code = "api.action-not-served"
    sentence = "There is no such action: {action} of {path} is not served by this release."
    hint = "docs/reference/not-served.md lists them all."


class WrongMethod(Permanent):
    code = "api.wrong-method"
    status = 405
    sentence = "The method {method} is not allowed for {path}; allowed are: {allowed}."


class VersionMalformed(Invalid):
    code = "api.version-malformed"
    sentence = "API Version String {version} is of invalid format. Must be of format MajorNum.MinorNum."


class VersionUnsupported(Permanent):
    code = "api.version-unsupported"
    status = 406
    sentence = "Version {version} is not supported by the API. Minimum is {minimum} and maximum is {maximum}."


class VersionNotHere(NotFound):
    code = "api.version-not-here"
    sentence = "API version {version} is not supported on this method."
    hint = "It takes microversions {first} to {last}."


class AnswerInvalid(Permanent):
    code = "api.answer-invalid"
    status = 500
    sentence = "The answer does not match its schema: {reason}."
    hint = "This is a defect; response_validation = warn lets such answers pass."
