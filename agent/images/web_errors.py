"""What can go wrong between this host and a web server or image service that gives or takes an image's bytes."""

from __future__ import annotations

from agent.base.errors import Permanent, Temporary
from agent.images.errors import ImageRefused


class SourceRefused(ImageRefused):
    """An address that images may not be fetched from."""

    code = "image.source-refused"
    sentence = "Images are not fetched from {where}: {reason}."
    hint = "Use an address of a public server, or ask the operator to list its network in images.networks."


class SourceMoved(ImageRefused):
    code = "image.source-moved"
    sentence = "{where} sends its readers on to another server."
    hint = "Give the address that it leads to."


class SourceGone(Permanent):
    code = "image.source-gone"
    status = 404
    exit_code = 4
    sentence = "{where} has no such image (it answered {status_code})."
    hint = "Check the address; in an image service, whether the image is still there and active."


class SourceAway(Temporary):
    code = "image.source-away"
    retry_after = 5.0
    sentence = "{where} does not give the image: {reason}."
    hint = "It is tried again by itself; check that this host reaches the server, and the server's own log."


class SourceDenied(Temporary):
    """Also told for a login that ran out on the way: the next try brings a fresh one."""

    code = "image.source-denied"
    status = 502
    sentence = "{where} does not let this site read or write the image (it answered {status_code})."
    hint = "The site's user at the image service needs the role admin, or a policy there that allows this."


class SourceTooLarge(ImageRefused):
    code = "image.source-size"
    sentence = "{where} offers {size} bytes, not the {limit} at most that were expected."
    hint = "Check that it is the right image; raise images.fetch_max_bytes where it is."


class SourceSlow(Permanent):
    code = "image.source-slow"
    status = 504
    sentence = "{where} did not give the whole image within {seconds} seconds."
    hint = "Use a nearer server, or raise images.fetch_timeout_s."


class ServiceBusy(Temporary):
    code = "image.service-busy"
    status = 409
    retry_after = 5.0
    sentence = "The image service still works on image {id} (status {state})."
    hint = "It is tried again by itself; an upload that broke off is noticed by the service after a while."


class UploadRefused(Permanent):
    code = "image.upload-refused"
    status = 502
    sentence = "The image service did not take the data of image {id}: it answered {status_code}."
    hint = "See the service's own log; usual reasons are a full store, a quota, or a store that does not exist."


class UploadDiffers(Permanent):
    code = "image.upload-differs"
    status = 502
    sentence = "The image service keeps other bytes for image {id} than were sent to it."
    hint = "Upload again; if that repeats, look for a failing disk or memory in the service's store."
