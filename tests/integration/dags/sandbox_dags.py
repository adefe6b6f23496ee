"""DAGs without ModelArts, to test the sandbox itself."""

from datetime import datetime

from airflow.providers.common.compat.sdk import dag, task


@dag(schedule="@daily", start_date=datetime(2024, 1, 1), catchup=True)
def sandbox_mapped():
    @task
    def numbers() -> list[int]:
        return [1, 2]

    @task
    def double(number: int) -> int:
        print(f"doubling {number}")
        return 2 * number

    @task
    def total(doubled: list[int], params: dict | None = None) -> dict[str, object]:
        return {"total": sum(doubled), "params": params}

    total(double.expand(number=numbers()))


@dag(schedule=None, start_date=datetime(2024, 1, 1))
def sandbox_slow():
    @task
    def sleep() -> None:
        import time

        time.sleep(300)

    sleep()


sandbox_mapped()
sandbox_slow()
