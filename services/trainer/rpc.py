"""The gRPC edge of the trainer: show and stop a run."""

from typing import Any

from prime import wire
from prime.v1 import trainer_pb2, trainer_pb2_grpc
from services.trainer.loop import TrainingLoop
from services.trainer.progress import Progress


class TrainerServicer(trainer_pb2_grpc.TrainerServiceServicer):
    """`prime.v1.TrainerService` over a loop."""

    def __init__(self, loop: TrainingLoop, progress: Progress) -> None:
        self._loop = loop
        self._progress = progress

    async def GetStatus(
        self, request: trainer_pb2.TrainerServiceGetStatusRequest, context: Any
    ) -> trainer_pb2.TrainerServiceGetStatusResponse:
        """Where the run stands."""
        return wire.encode_trainer_status(self._progress.status())

    async def Stop(self, request: trainer_pb2.StopRequest, context: Any) -> trainer_pb2.StopResponse:
        """End after the step at hand."""
        return trainer_pb2.StopResponse(step=self._loop.stop())
