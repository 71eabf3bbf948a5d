"""Quality inspection: lots, laboratory results, certificates, traceability."""

from pathlib import Path

from hutong.api.quality.v1 import service_pb2
from services.kit.department import Room

ROOM = Room("quality", service_pb2.DESCRIPTOR.services_by_name["QualityService"], Path(__file__).parent)
