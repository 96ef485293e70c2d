"""How core values become messages and back. Knows nothing of any middleware: messages are made by the bus's ``new``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from penguin_ros.core.bus import Message
from penguin_ros.core.errors import QuestionError
from penguin_ros.core.frame import Region
from penguin_ros.core.scene import Answer, GroundedPhrase, Latency, Question, Scene, TokenUse

_NS = 1_000_000_000


class NewMessage(Protocol):
    """Bus.new: a message of a type, fields left out have their defaults."""

    def __call__(self, type_name: str, **fields: object) -> Message: ...


def ns_from_stamp(stamp: Message) -> int:
    """builtin_interfaces/Time -> nanoseconds."""
    return int(stamp.sec) * _NS + int(stamp.nanosec)


def stamp_from_ns(new: NewMessage, stamp_ns: int) -> Message:
    """Nanoseconds -> builtin_interfaces/Time."""
    return new('builtin_interfaces/msg/Time', sec=stamp_ns // _NS, nanosec=stamp_ns % _NS)


def header_from(new: NewMessage, stamp_ns: int, frame_id: str) -> Message:
    return new('std_msgs/msg/Header', stamp=stamp_from_ns(new, stamp_ns), frame_id=frame_id)


def msg_from_scene(new: NewMessage, scene: Scene, *, model: str, engine: str) -> Message:
    """A Scene as penguin_ros/SceneDescription."""
    return new(
        'penguin_ros/msg/SceneDescription',
        header=header_from(new, scene.stamp_ns, scene.frame_id), camera=scene.camera, caption=scene.caption,
        phrases=_phrase_msgs(new, scene.phrases), keyframe=scene.keyframe, keyframe_reason=scene.keyframe_reason,
        unchanged=scene.unchanged, caption_stamp=stamp_from_ns(new, scene.caption_stamp_ns),
        confidence=scene.confidence, age_ms=scene.age_ms, status=int(scene.status), reason=scene.reason,
        tokens=_tokens_msg(new, scene.tokens), model=model, engine=engine, latency=_latency_msg(new, scene.latency))


def detections_from_scene(new: NewMessage, scene: Scene) -> Message:
    """The boxes of a Scene as vision_msgs/Detection2DArray, for tools; class_id holds the phrase."""
    header = header_from(new, scene.stamp_ns, scene.frame_id)
    detections = []
    for phrase in scene.phrases:
        if phrase.region is None:
            continue
        box = phrase.region
        centre = new('vision_msgs/msg/Pose2D', theta=0.0, position=new(
            'vision_msgs/msg/Point2D', x=(box.x_min + box.x_max) / 2, y=(box.y_min + box.y_max) / 2))
        hypothesis = new('vision_msgs/msg/ObjectHypothesis', class_id=phrase.text, score=phrase.confidence)
        detections.append(new(
            'vision_msgs/msg/Detection2D', header=header, id=str(phrase.track_id) if phrase.track_id else '',
            results=[new('vision_msgs/msg/ObjectHypothesisWithPose', hypothesis=hypothesis)],
            bbox=new('vision_msgs/msg/BoundingBox2D', center=centre, size_x=box.width_px, size_y=box.height_px)))
    return new('vision_msgs/msg/Detection2DArray', header=header, detections=detections)


def question_from_request(request: Message) -> Question:
    """The fields that Ask, AskStream, DescribeRegion and the Question topic share -> Question.

    Raises QuestionError for a negative or endless timeout.
    """
    timeout_s = float(request.timeout)
    if not 0.0 <= timeout_s <= 3600.0:
        raise QuestionError(f'timeout is {timeout_s} s; it can be 0 (the default) to 3600. Leave it 0 when unsure.')
    return Question(
        text=str(getattr(request, 'question', '')), camera=str(request.camera), region=_region_from_roi(request.region),
        stamp_ns=ns_from_stamp(request.stamp), choices=tuple(str(choice) for choice in getattr(request, 'choices', ())),
        timeout_s=timeout_s)


def answer_fields(new: NewMessage, answer: Answer) -> dict[str, object]:
    """The fields of a successful answer that Ask, AskStream and the Answer topic share."""
    return {
        'success': True, 'message': '', 'answer': answer.text, 'choice': answer.choice,
        'probabilities': [float(value) for value in answer.probabilities], **_seen_fields(new, answer)}


def description_fields(new: NewMessage, answer: Answer) -> dict[str, object]:
    """The same for DescribeRegion."""
    return {'success': True, 'message': '', 'description': answer.text, **_seen_fields(new, answer)}


def _seen_fields(new: NewMessage, answer: Answer) -> dict[str, object]:
    return {
        'confidence': answer.confidence, 'phrases': _phrase_msgs(new, answer.phrases),
        'header': header_from(new, answer.stamp_ns, answer.frame_id), 'age_ms': answer.age_ms,
        'latency': _latency_msg(new, answer.latency)}


def _phrase_msgs(new: NewMessage, phrases: Sequence[GroundedPhrase]) -> list[Message]:
    messages = []
    for phrase in phrases:
        box = phrase.region or Region(0.0, 0.0, 0.0, 0.0)
        messages.append(new(
            'penguin_ros/msg/GroundedPhrase', text=phrase.text, begin=phrase.begin, end=phrase.end,
            has_box=phrase.region is not None, x_min=float(box.x_min), y_min=float(box.y_min), x_max=float(box.x_max),
            y_max=float(box.y_max), confidence=phrase.confidence, track_id=phrase.track_id))
    return messages


def _tokens_msg(new: NewMessage, tokens: TokenUse) -> Message:
    return new('penguin_ros/msg/TokenBudget', limit=tokens.limit, used=tokens.used, encoded=tokens.encoded,
               reused=tokens.reused, frames=tokens.frames, keyframes=tokens.keyframes, dropped=tokens.dropped)


def _latency_msg(new: NewMessage, latency: Latency) -> Message:
    return new('penguin_ros/msg/Latency', queue_ms=latency.queue_ms, encode_ms=latency.encode_ms,
               prefill_ms=latency.prefill_ms, decode_ms=latency.decode_ms, total_ms=latency.total_ms)


def _region_from_roi(roi: Message) -> Region | None:
    """sensor_msgs/RegionOfInterest -> Region; all zero means none was given."""
    x, y, width, height = int(roi.x_offset), int(roi.y_offset), int(roi.width), int(roi.height)
    if not (x or y or width or height):
        return None
    return Region(float(x), float(y), float(x + width), float(y + height))
